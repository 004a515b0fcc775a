"""Methods that train on something else than ESD's push: attention, another concept, a part of the weights."""

import dataclasses
from random import Random

import torch

from crce.config import EraseConfig
from crce.methods.attention import attention_maps, positions
from crce.methods.losses import StepContext
from crce.methods.parameters import everything
from crce.methods.registry import METHODS
from crce.training.latent_cache import sample_latents, shuffle_latents
from crce.training.loop import erase_steps


def erased(model, spec, method, **settings):
    *_, step = erase_steps(model, spec, EraseConfig(method, **settings))
    return step.weights()


def draw(model, spec, method, moment):
    names = METHODS[method].trainable(model.unet)
    weights = {name: weight for name, weight in model.unet.named_parameters() if name in names}
    return StepContext(model, spec, EraseConfig(method, steps=50), weights, weights, moment, Random(0))


def bank(model, prompt):
    return shuffle_latents(list(sample_latents(model, prompt, EraseConfig(steps=50))), 0)


def attention(model, prompt, words, moment):
    """How much of the attention the words get, on average over layers, heads and pixels."""
    with torch.no_grad(), attention_maps(model.unet) as maps:
        model.predict(moment.x, moment.t, model.embed([prompt]).expand(len(moment.x), -1, -1))
    where = positions(model, prompt, words)
    return torch.stack([found[..., where].sum(-1).mean() for found in maps]).mean()


def test_fmn_takes_the_attention_from_the_concept(tiny_sd, dog):
    moments = bank(tiny_sd, "dog")
    before = attention(tiny_sd, "dog", "dog", moments)
    with erased(tiny_sd, dog, "fmn", steps=100, lr=1e-2).applied(tiny_sd):
        after = attention(tiny_sd, "dog", "dog", moments)
    assert after < before / 2


def test_fmn_starts_at_the_norm_of_all_that_the_name_and_the_ends_of_text_get(tiny_sd, dog):
    moment = bank(tiny_sd, "dog").at(0)
    with torch.no_grad():
        loss = METHODS["fmn"].losses(draw(tiny_sd, dog, "fmn", moment))["target"]
        with attention_maps(tiny_sd.unet) as maps:
            tiny_sd.predict(moment.x, moment.t, tiny_sd.embed(["dog"]))
    squares = sum((found[..., 1:] ** 2).sum() for found in maps)
    torch.testing.assert_close(loss, squares.sqrt())


def test_ca_has_its_optimum_where_the_target_is_the_anchor(tiny_sd, dog):
    """The most certain retain, on its own latents: with itself for a target there is nothing to change."""
    ca = METHODS["ca"]
    assert ca.latent_prompt(dog) == "cat"
    moment = bank(tiny_sd, "cat").at(0)
    own = dataclasses.replace(dog, target="cat")
    steps = [draw(tiny_sd, spec, "ca", moment) for spec in (own, dog)]
    losses = [next(ca.losses_by_pass(step))["target"].item() for step in steps]
    assert losses[0] < 1e-10 < losses[1]


def test_ca_draws_the_anchor_in_the_targets_place(tiny_sd, dog):
    moments = bank(tiny_sd, "cat")

    def far():
        e = tiny_sd.predict(moments.x, moments.t, tiny_sd.embed(["dog"]).expand(len(moments.x), -1, -1))
        return (e - moments.e_c).norm()

    before = far()
    with erased(tiny_sd, dog, "ca", steps=100, lr=3e-3).applied(tiny_sd):
        assert far() < before / 2


def test_salun_leaves_the_masked_half_as_it_was(tiny_sd, dog):
    before = dict(tiny_sd.unet.named_parameters())
    tensors = erased(tiny_sd, dog, "salun", steps=10).tensors
    assert set(tensors) == set(everything(tiny_sd.unet))
    changed = sum((before[name] != tensor).sum().item() for name, tensor in tensors.items())
    assert 0.45 < changed / sum(tensor.numel() for tensor in tensors.values()) <= 0.5


def test_saluns_mask_depends_on_the_concept(tiny_sd, dog):
    before = dict(tiny_sd.unet.named_parameters())
    masks = []
    for spec in (dog, dataclasses.replace(dog, target="pig")):
        tensors = erased(tiny_sd, spec, "salun", steps=1).tensors
        masks.append({name: before[name] != tensor for name, tensor in tensors.items()})
    assert any(not torch.equal(masks[0][name], masks[1][name]) for name in before)


def test_saluns_new_label_is_the_most_certain_retain(tiny_sd, dog):
    method, moment = METHODS["salun"], bank(tiny_sd, "dog").at(0)
    step = draw(tiny_sd, dog, "salun", moment)
    torch.testing.assert_close(method.goal(step), tiny_sd.predict(moment.x, moment.t, tiny_sd.embed(["cat"])))
    (target, kept), retains = method.loss_terms(step), tiny_sd.embed(["cat", "wolf", "fox"])
    assert (target.name, target.held, target.weight) == ("target", False, 1)
    assert (kept.name, kept.held, kept.weight) == ("retains", True, 0.5)
    assert any(torch.equal(kept.state, state) for state in retains)
