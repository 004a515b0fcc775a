"""Replacement, the target drawn as an anchor; and an attribute erased from one concept alone."""

from dataclasses import replace
from random import Random

import pytest
import torch

from crce.concepts.spec import ConceptSpec, Term, restrict
from crce.config import EraseConfig, check, resolve_config
from crce.errors import CrceError
from crce.evaluation.evaluate import list_questions
from crce.judges.embedded import EmbeddedJudge
from crce.methods.losses import StepContext
from crce.methods.registry import method_of
from crce.training.latent_cache import sample_latents, shuffle_latents
from crce.training.loop import erase_steps, preview


@pytest.fixture(scope="module")
def sample(tiny_sd):
    return shuffle_latents(list(sample_latents(tiny_sd, "dog", EraseConfig(steps=50))), 0)


@pytest.fixture
def hat():
    """An attribute: of a pig here, and the wolf, the pig and the hat elsewhere shall keep theirs."""
    return ConceptSpec("hat", corefs=(Term("cap"),), retains=(Term("pig", "very high"), Term("wolf")))


def erased(model, spec, method, **settings):
    *_, step = erase_steps(model, spec, EraseConfig(method, **settings))
    return step.weights()


def goal_of(model, spec, config, sample, attribute=""):
    resolved = resolve_config(config, model.base)
    return method_of(resolved).goal(
        StepContext(model, spec, resolved, {}, {}, sample.at(0), Random(0), attribute=attribute)
    )


def distance(model, sample, text, other, weights=None):
    """How far the prediction for the text is from the frozen one for the other, over these latents."""
    at = [(sample.x, sample.t, model.embed([t]).expand(len(sample.x), -1, -1)) for t in (text, other)]
    with torch.no_grad():
        frozen = model.predict(*at[1])
        return (model.predict(*at[0], weights) - frozen).norm().item()


@pytest.mark.parametrize("method", ["esd-x-strict", "esd-u", "realera", "crce", "crce-plus", "spm", "salun"])
def test_the_goal_is_the_frozen_prediction_for_the_anchor(tiny_sd, dog, sample, method):
    goal = goal_of(tiny_sd, dog, EraseConfig(method, anchor="a wolf", eta=3.0), sample)
    at = sample.at(0)
    torch.testing.assert_close(goal, tiny_sd.predict(at.x, at.t, tiny_sd.embed(["a wolf"])))


def test_concept_ablation_has_an_anchor_of_its_own_until_one_is_given(tiny_sd, dog):
    own, given = (method_of(EraseConfig("ca", anchor=anchor)) for anchor in (None, "a wolf"))
    assert (own.latent_prompt(dog), given.latent_prompt(dog)) == ("cat", "a wolf")
    tensors = [erased(tiny_sd, dog, "ca", steps=2, anchor=anchor).tensors for anchor in (None, "cat", "a wolf")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert not all(torch.equal(tensors[0][name], tensors[2][name]) for name in tensors[0])


@pytest.mark.parametrize("method", ["esd-x-strict", "crce"])
def test_training_draws_the_target_as_the_anchor(tiny_sd, dog, sample, method):
    weights = erased(tiny_sd, dog, method, steps=100, lr=1e-3, corefs=1, retains=1, anchor="zebra").tensors
    assert distance(tiny_sd, sample, "dog", "zebra", weights) < distance(tiny_sd, sample, "dog", "zebra") / 2


@pytest.mark.parametrize("method", ["uce", "crce-uce", "crce-null", "speed"])
def test_a_closed_form_takes_the_anchor_as_its_guide(tiny_sd, dog, method):
    """Of K and V, the target's are nearer to the anchor's than before, and than with nothing for a guide."""
    before = dict(tiny_sd.unet.named_parameters())
    target, anchor = (tiny_sd.embed([text])[0, 1:] for text in ("dog", "zebra"))

    def missed(tensors):
        return sum((tensors[n] @ target.T - before[n] @ anchor.T).square().sum() for n in tensors).item()

    replaced, gone = (erased(tiny_sd, dog, method, anchor=a).tensors for a in ("zebra", None))
    assert missed(replaced) < missed({name: before[name] for name in replaced})
    assert missed(replaced) < missed(gone)


def test_the_preview_shows_the_anchor(tiny_sd, dog):
    seen, whole = preview(tiny_sd, dog, "zebra").tensors, erased(tiny_sd, dog, "crce-uce", anchor="zebra").tensors
    assert all(torch.equal(seen[name], whole[name]) for name in whole)
    with pytest.raises(CrceError, match="is erased itself, as 'puppy'"):
        preview(tiny_sd, dog, "A puppy")


@pytest.mark.parametrize("field", ["anchor", "erase_from"])
@pytest.mark.parametrize("phrase", ["dog", "a Dog", "PUPPY", "guide  dog", "dog (animal)"])
def test_what_is_erased_cannot_take_its_own_place(dog, field, phrase):
    with pytest.raises(CrceError, match="is erased itself"):
        check(dog, EraseConfig("esd-x-strict", **{field: phrase}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor": " "}, "The anchor is empty"),
        ({"erase_from": ""}, "The concept to erase from is empty"),
        ({"method": "mace", "anchor": "wolf"}, "MACE has no anchor"),
        ({"backbone": "fmn", "anchor": "wolf"}, "Forget-Me-Not has no anchor"),
        ({"method": "uce", "erase_from": "wolf"}, "UCE cannot erase something from 'wolf' alone"),
        ({"backbone": "ca", "erase_from": "wolf"}, "Concept Ablation cannot erase something from"),
        ({"anchor": "wolf", "erase_from": "fox"}, "exclude each other"),
    ],
)
def test_what_a_method_cannot_do_is_told_at_once(settings, message):
    with pytest.raises(CrceError, match=message):
        EraseConfig(**settings)


@pytest.mark.parametrize("field", ["anchor", "erase_from"])
def test_an_anchor_that_the_base_cannot_read_is_told_before_any_work(tiny_sd, dog, field):
    with pytest.raises(CrceError, match="has 102 tokens"):
        next(iter(erase_steps(tiny_sd, dog, EraseConfig("esd-x-strict", **{field: "d" * 100}))))


def test_erase_from_is_the_published_formula(tiny_sd, hat, sample):
    """e_f − η (e_c − e_∅) for the concept f and its attribute c, at f's own latents."""
    config = EraseConfig("esd-x-strict", erase_from="pig", eta=2.0)
    goal = goal_of(tiny_sd, restrict(hat, "pig"), config, sample, "hat")
    at = sample.at(0)
    e_c = tiny_sd.predict(at.x, at.t, tiny_sd.embed(["hat"]))
    torch.testing.assert_close(goal, at.e_c - 2.0 * (e_c - at.e_0))


def test_an_attribute_goes_from_the_concept_alone(tiny_sd, hat, sample):
    """The concept is what trains; the attribute elsewhere is among the retains, the concept itself among none."""
    lists = restrict(hat, "Pig")
    assert (lists.target, lists.name) == ("Pig", "Pig (without hat)")
    assert [t.text for t in lists.train_corefs] == ["Pig, cap"]
    assert [t.text for t in lists.train_retains] == ["hat", "wolf"] and [t.text for t in lists.test_retains] == ["Pig"]
    settings = {"steps": 100, "lr": 1e-3, "corefs": 0, "retains": 2, "erase_from": "pig"}
    shares = {}
    for method in ("esd-x-strict", "crce"):
        weights = erased(tiny_sd, hat, method, **settings).tensors
        moved, held = (distance(tiny_sd, sample, text, text, weights) for text in ("pig", "hat"))
        shares[method] = held / moved
    assert shares["crce"] < 0.7 * shares["esd-x-strict"], shares


def test_the_rest_of_the_concept_is_measured(tiny_sd_dir, hat):
    judge = EmbeddedJudge.load(str(tiny_sd_dir))
    spec = replace(hat, target="fox")  # the judge knows no hat
    asked = {(q.kind, q.split, q.text, q.asked) for q in list_questions(spec, 1, judge, erase_from="dog")}
    assert asked == {
        ("target", "train", "dog", "fox"), ("coref", "train", "dog, cap", "fox"), ("retain", "train", "fox", "fox"),
        ("retain", "test", "dog", "dog"), ("retain", "train", "pig", "pig"), ("retain", "train", "wolf", "wolf"),
    }  # fmt: skip
