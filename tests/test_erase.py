"""The mathematics by property, and the loop."""

import dataclasses
import random
from contextlib import contextmanager

import pytest
import torch

from crce.catalogue import ADAPTER, BACKBONES, METHOD_FACTS
from crce.concepts.spec import Term, resolve_conflicts, spec_from_dict, spec_to_dict
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.ball import draw_inside
from crce.methods.base import GradientMethod
from crce.methods.erased_weights import ErasedWeights
from crce.methods.losses import StepContext
from crce.methods.parameters import (
    all_but_cross_attention,
    cross_attention,
    everything,
    keys_values,
    queries_keys,
    values,
)
from crce.methods.registry import CRCE_VARIANTS, METHODS
from crce.models.diffusion import Diffusion
from crce.training.latent_cache import sample_latents, shuffle_latents
from crce.training.loop import erase_steps
from tests.tiny import felt

SHORT = EraseConfig(steps=5, corefs=2, retains=2)


def last(model, spec, config=SHORT, **options):
    *_, step = erase_steps(model, spec, config, **options)
    return step


def train(model, spec, config=SHORT, **options):
    return [step for step in erase_steps(model, spec, config, **options) if step.phase == "train"]


def fill_bank(model, config):
    return shuffle_latents(list(sample_latents(model, "dog", config)), config.seed)


def same(a: ErasedWeights, b: ErasedWeights) -> bool:
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_every_method_has_its_card():
    assert METHODS.keys() | CRCE_VARIANTS.keys() == METHOD_FACTS.keys()
    variants = {key for key, facts in METHOD_FACTS.items() if facts.variant}
    assert variants == CRCE_VARIANTS.keys() and set(BACKBONES) <= METHODS.keys()
    assert all(isinstance(METHODS[key], GradientMethod) for key in BACKBONES)


@pytest.mark.parametrize("method", [key for key, card in METHOD_FACTS.items() if card.kind != ADAPTER])
def test_a_method_changes_what_it_names_and_nothing_else(tiny_sd, dog, method):
    before = {n: p.clone() for n, p in tiny_sd.unet.named_parameters()}
    delta = last(tiny_sd, dog, dataclasses.replace(SHORT, method=method)).weights()
    own = {"esd-x": cross_attention, "esd-u": all_but_cross_attention, "speed": values, "crce-null": values,
           "fmn": queries_keys, "salun": everything}  # fmt: skip
    names = own.get(method, keys_values)(tiny_sd.unet)
    assert set(delta.tensors) == set(names)
    moved = {n for n, w in delta.tensors.items() if not torch.equal(before[n], w)}
    # SalUn's mask may cover a small tensor, so only the others owe it of every weight that counts.
    assert moved if method == "salun" else moved >= felt(tiny_sd, names)
    assert all(torch.equal(before[n], p) for n, p in tiny_sd.unet.named_parameters())


def test_what_no_prediction_feels_need_not_move(tiny_sd):
    """Over the middle block's single pixel the softmax is 1, so the Q and K of its self-attention say nothing: their
    gradient is rounding noise on one processor and exactly zero on another.
    """
    names, block = everything(tiny_sd.unet), "mid_block.attentions.0.transformer_blocks.0.attn1"
    assert set(names) - felt(tiny_sd, names) == {f"{block}.to_q.weight", f"{block}.to_k.weight"}


def test_strict_tunes_only_keys_and_values(tiny_sd):
    names = keys_values(tiny_sd.unet)
    assert names and all("attn2.to_k" in n or "attn2.to_v" in n for n in names)


def test_losses_fall(tiny_sd, dog):
    steps = train(tiny_sd, dog, EraseConfig(steps=60, corefs=3, retains=3, lr=3e-3))
    first, end = (sum(s.losses["target"] for s in part) for part in (steps[:20], steps[-20:]))
    assert end < first


def test_esd_has_its_optimum_at_the_anchor(tiny_sd, dog):
    """With η = −1 the anchor is e_c itself, where the base already stands: no loss and nothing to change."""
    method, model = METHODS["esd-x-strict"], tiny_sd
    names = keys_values(model.unet)
    config = EraseConfig(method="esd-x-strict", steps=50)
    bank = fill_bank(model, config)
    towards_c = dataclasses.replace(bank, e_0=torch.zeros_like(bank.e_0), e_c=-bank.e_c)
    tensors = method.start(model, (dog,), config, names)
    (parts,) = method.losses_by_pass(
        StepContext(model, dog, config, tensors, tensors, towards_c.at(0), random.Random(0))
    )
    loss = parts["target"]
    assert loss.item() < 1e-10
    (parts,) = method.losses_by_pass(StepContext(model, dog, config, tensors, tensors, bank.at(0), random.Random(0)))
    away = parts["target"]
    assert away.item() > 1e-10


@pytest.mark.parametrize(("method", "needed"), [("realera", "corefs"), ("ca", "retains"), ("salun", "retains")])
def test_a_method_says_which_list_it_cannot_do_without(tiny_sd, dog, method, needed):
    with pytest.raises(CrceError, match=f"no training {needed} and {method} needs one"):
        last(tiny_sd, dataclasses.replace(dog, **{needed: ()}), dataclasses.replace(SHORT, method=method))


def test_realera_pushes_points_inside_the_ball_and_holds_points_outside(tiny_sd, dog):
    """Around a target whose one coref gives the radius: 10 points up to it go, 2 beyond it stay."""
    (target, coref), lone = tiny_sd.embed(["dog", "puppy"]), dataclasses.replace(dog, corefs=dog.corefs[:1])
    radius = (coref - target).norm()
    for seed in range(20):
        draw = StepContext(tiny_sd, lone, SHORT, {}, {}, None, random.Random(seed))
        first, *pulls = METHODS["realera"].loss_terms(draw)
        assert (first.name, first.held, first.weight) == ("target", False, 1) and torch.equal(first.state, target)
        far = {held: [(p.state - target).norm() / radius for p in pulls if p.held == held] for held in (False, True)}
        assert len(far[False]) == 10 and all(distance < 1 for distance in far[False])
        assert len(far[True]) == 2 and all(1 <= distance < 2 for distance in far[True])
        assert all(p.weight == (1 / 2 if p.held else 1 / 10) for p in pulls)


def test_crce_sphere_draws_inside_realeras_ball(tiny_sd, dog):
    """The same sampler: with the same random numbers the same points. The retains are the list's own."""
    lone, target = dataclasses.replace(dog, corefs=dog.corefs[:1]), tiny_sd.embed(["dog"])[0]
    radius, far = (tiny_sd.embed(["puppy"])[0] - target).norm(), []
    for seed in range(20):
        pulls = CRCE_VARIANTS["crce-sphere"].terms(StepContext(tiny_sd, lone, SHORT, {}, {}, None, random.Random(seed)))
        far += [((pull.state - target).norm() / radius).item() for pull in pulls if not pull.held]
        assert [pull.weight for pull in pulls if not pull.held] == [1 / SHORT.corefs] * SHORT.corefs
        kept = tiny_sd.embed([t.text for t in dog.train_retains])
        assert all(any(torch.equal(p.state, state) for state in kept) for p in pulls if p.held)
    assert len(far) == 40 and max(far) < 1 and min(far) < 0.2 and 0.3 < sum(far) / 40 < 0.7
    one, other = (draw_inside(StepContext(tiny_sd, lone, SHORT, {}, {}, None, random.Random(7))) for _ in range(2))
    assert torch.equal(one, other)


def test_esd_u_tunes_linear_layers_and_convolutions_and_no_norm(tiny_sd):
    """With the embedding of the time and the first and last convolution, as the public diffusers script does."""
    names, modules = all_but_cross_attention(tiny_sd.unet), dict(tiny_sd.unet.named_modules())
    owners = {name.rpartition(".")[0] for name in names}
    assert all(isinstance(modules[owner], torch.nn.Linear | torch.nn.Conv2d) for owner in owners)
    assert {"conv_in", "conv_out", "time_embedding.linear_1"} <= owners and not any("attn2" in name for name in names)
    left = {name for name, _ in tiny_sd.unet.named_parameters()} - set(names) - set(cross_attention(tiny_sd.unet))
    assert left and all("norm" in name for name in left)


def test_a_lambda_is_for_methods_that_have_one(tiny_sd, dog):
    """Closed forms, and those that begin with one; the same one as the base's preset changes nothing."""
    for method in ("uce", "crce-uce", "crce-plus", "speed", "crce-null", "mace"):
        settings = dataclasses.replace(SHORT, method=method, steps=1)
        found = [last(tiny_sd, dog, dataclasses.replace(settings, damping=d)).weights() for d in (None, 0.02, 50.0)]
        assert not same(found[1], found[2]), method
    same_as_preset = dataclasses.replace(SHORT, method="crce-uce", damping=tiny_sd.defaults.damping)
    unsaid = dataclasses.replace(same_as_preset, damping=None)
    assert same(last(tiny_sd, dog, same_as_preset).weights(), last(tiny_sd, dog, unsaid).weights())
    with pytest.raises(CrceError, match="damping is 2, and esd-x-strict has none"):
        last(tiny_sd, dog, dataclasses.replace(SHORT, damping=2.0))


def test_crce_without_corefs_and_retains_is_esd(tiny_sd, dog):
    bare = dataclasses.replace(SHORT, corefs=0, retains=0)
    assert same(
        last(tiny_sd, dog, bare).weights(),
        last(tiny_sd, dog, dataclasses.replace(bare, method="esd-x-strict")).weights(),
    )


def test_a_retain_starts_without_loss_and_a_coref_does_not(tiny_sd, dog):
    first = train(tiny_sd, dog)[0]
    assert first.losses["retains"] < 1e-10 < first.losses["corefs"]


def test_a_term_weighs_as_its_certainty_says(tiny_sd, dog):
    def loss(certainty):
        corefs = tuple(dataclasses.replace(t, certainty=certainty) for t in dog.corefs)
        spec = dataclasses.replace(dog, corefs=corefs)
        return train(tiny_sd, spec, dataclasses.replace(SHORT, corefs=3))[0].losses["corefs"]

    assert loss("very low") == pytest.approx(0.2 * loss("very high"), rel=1e-4)


def test_a_bank_sampled_in_parts_is_the_same_bank(tiny_sd):
    """Where memory counts, no more trajectories go through the U-Net at once than a step can bear."""
    config, most = EraseConfig(steps=350), []
    with counted_rows(tiny_sd, most):
        whole = fill_bank(tiny_sd, config)
        parts = fill_bank(tiny_sd, dataclasses.replace(config, microbatch_size=1))
    assert (max(most[:50]), max(most[50:])) == (14, 12) and len(most) == 150
    assert torch.equal(whole.t, parts.t)
    torch.testing.assert_close(whole.x, parts.x, atol=1e-4, rtol=1e-4)


@contextmanager
def counted_rows(model, rows):
    hook = model.unet.register_forward_pre_hook(lambda unet, inputs: rows.append(len(inputs[0])))
    yield
    hook.remove()


def test_the_bank_holds_what_fresh_sampling_gives(tiny_sd):
    """The same noise, sampled alone: the same latents, and predictions that the model gives for them now."""
    config = EraseConfig(steps=100, seed=3)
    bank = fill_bank(tiny_sd, config)
    again = tiny_sd.predict(bank.x, bank.t, tiny_sd.embed(["dog"]).expand(100, -1, -1))
    torch.testing.assert_close(bank.e_c, again, atol=1e-5, rtol=1e-4)
    start = bank.x[bank.t == bank.t.max()]
    fresh = tiny_sd.denoise(start[:1], tiny_sd.embed(["dog"]), 50, config.guidance)
    for moment, _ in fresh:
        near = (bank.x[bank.t == moment.t] - moment.x).abs().amax(dim=(1, 2, 3))
        assert near.min() < 1e-4


def test_a_shuffled_spec_trains_the_same(tiny_sd, dog):
    facts = spec_to_dict(dog)
    for part in ("corefs", "retains"):
        random.Random(1).shuffle(facts[part])
    other = spec_from_dict(facts)
    assert other != dog and other.digest == dog.digest
    assert same(last(tiny_sd, dog).weights(), last(tiny_sd, other).weights())


def test_crce_draws_anew_and_fixed_does_not(tiny_sd, dog):
    def seen(method):
        model = Diffusion.load(tiny_sd.base, device="cpu")
        list(erase_steps(model, dog, EraseConfig(method=method, steps=12, corefs=1, retains=1)))
        return set(model._states) - {"", "dog"}

    assert seen("crce") == {"puppy", "hound", "pooch", "cat", "wolf", "fox"}
    assert seen("crce-fixed") == {"puppy", "cat"}


def test_test_terms_stay_hidden_from_training(tiny_sd, dog):
    model = Diffusion.load(tiny_sd.base, device="cpu")
    list(erase_steps(model, dog, EraseConfig(steps=20, corefs=3, retains=3)))
    assert not {"guide dog", "pig"} & set(model._states)


def test_a_finished_checkpoint_still_gives_its_delta(tiny_sd, dog, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    whole = last(tiny_sd, dog, checkpoint=file)
    assert same(whole.weights(), last(tiny_sd, dog, checkpoint=file, resume=True).weights())


@pytest.mark.parametrize("method", ["crce", "crce-sphere", "salun"])
def test_a_resumed_run_ends_bit_identical(tiny_sd, dog, tmp_path, method):
    config = dataclasses.replace(SHORT, steps=8, checkpoint_every=3, method=method)
    whole = last(tiny_sd, dog, config)
    file = tmp_path / "checkpoint.safetensors"
    for step in erase_steps(tiny_sd, dog, config, checkpoint=file):
        if (step.phase, step.number) == ("train", 5):
            break
    resumed = train(tiny_sd, dog, config, checkpoint=file, resume=True)
    assert resumed[0].number == 4
    assert same(whole.weights(), resumed[-1].weights())


def test_a_checkpoint_of_other_settings_is_refused(tiny_sd, dog, tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    last(tiny_sd, dog, checkpoint=file)
    with pytest.raises(CrceError, match="other terms or settings"):
        last(tiny_sd, dog, dataclasses.replace(SHORT, lr=0.5), checkpoint=file, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tiny_sd, dog, tmp_path):
    file, model = tmp_path / "checkpoint.safetensors", Diffusion.load(tiny_sd.base, device="cpu")
    with pytest.raises(CrceError, match="target became (inf|nan) after step 2.*lower learning rate"):
        for step in erase_steps(model, dog, dataclasses.replace(SHORT, checkpoint_every=1), checkpoint=file):
            if (step.phase, step.number) == ("train", 2):
                model.unet.conv_out.bias.data[0] = float("inf")
    assert ErasedWeights.load(file).info["step"] == "2"


@pytest.mark.parametrize(("part", "option"), [("corefs", "--corefs"), ("retains", "--retains")])
def test_too_few_terms_name_both_ways_out(tiny_sd, dog, part, option):
    with pytest.raises(CrceError, match=f"Add {part}, or lower {option} to 0"):
        last(tiny_sd, dataclasses.replace(dog, **{part: ()}))


def test_seeds_differ(tiny_sd, dog):
    assert not same(last(tiny_sd, dog).weights(), last(tiny_sd, dog, dataclasses.replace(SHORT, seed=1)).weights())


def test_esd_needs_no_lists(tiny_sd, dog):
    bare = dataclasses.replace(dog, corefs=(), retains=())
    assert last(tiny_sd, bare, dataclasses.replace(SHORT, method="esd-x-strict")).number == 5


def test_a_bf16_base_is_tuned_in_fp32(tiny_sd, dog):
    """An update of 1e-5 is lost in a bf16 weight of ordinary size: the master weights must be fp32."""
    model = Diffusion.load(tiny_sd.base, device="cpu", dtype="bf16")
    delta = last(model, dog, dataclasses.replace(SHORT, lr=1e-5)).weights()
    base = model.masters(delta.tensors)
    assert all(w.dtype == torch.float32 for w in delta.tensors.values())
    moves = torch.cat([(w - base[n])[base[n].abs() > 0.05] for n, w in delta.tensors.items()]).abs()
    assert (moves > 0).float().mean() > 0.5 and moves.max() < 1e-4


@pytest.mark.parametrize("method", ["crce", "crce-uce"])
def test_several_concepts_share_one_run(tiny_sd, dog, method):
    cat = dataclasses.replace(dog, target="cat", corefs=(Term("kitty"), Term("tom")), retains=dog.retains[1:])
    assert [[t.text for t in s.retains] for s in resolve_conflicts([dog, cat])] == [["wolf", "fox", "pig"]] * 2
    settings = dataclasses.replace(SHORT, method=method)
    both = last(tiny_sd, [dog, cat], settings)
    assert both.number == both.total == (1 if method == "crce-uce" else 2 * SHORT.steps)
    assert both.weights().info["target"] == "dog, cat"
    assert not same(both.weights(), last(tiny_sd, dog, settings).weights())
    assert same(last(tiny_sd, [dog], settings).weights(), last(tiny_sd, dog, settings).weights())


def test_crce_adds_its_sums_to_any_backbone(tiny_sd, dog):
    steps = {on: train(tiny_sd, dog, dataclasses.replace(SHORT, backbone=on)) for on in BACKBONES}
    for on, found in steps.items():
        assert {"corefs", "retains"} < found[0].losses.keys()
        own = dataclasses.replace(SHORT, method=on)
        assert found[0].losses.keys() - {"corefs", "retains"} == train(tiny_sd, dog, own)[0].losses.keys()
    assert set(steps["esd-u"][-1].weights().tensors) == set(all_but_cross_attention(tiny_sd.unet))
    with pytest.raises(CrceError, match="no backbone"):
        EraseConfig(backbone="uce")


def test_rows_one_after_another_train_the_same(tiny_sd, dog):
    together, alone = (last(tiny_sd, dog, dataclasses.replace(SHORT, microbatch_size=rows)) for rows in (0, 1))
    assert alone.losses == pytest.approx(together.losses, rel=1e-4)
    for name, tensor in together.weights().tensors.items():
        torch.testing.assert_close(alone.weights().tensors[name], tensor, atol=1e-4, rtol=1e-3)
