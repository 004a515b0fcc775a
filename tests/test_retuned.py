"""Methods that train on something else than ESD's push: attention, another concept, a part of the weights."""

import dataclasses
from contextlib import nullcontext
from random import Random

import torch

from crce.config import EraseConfig
from crce.methods.attention import attention_maps, token_positions
from crce.methods.losses import StepContext
from crce.methods.parameters import everything
from crce.methods.registry import METHODS
from crce.training.latent_cache import own_groups, sample_latents, shuffle_latents
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
    where = token_positions(model, prompt, words)
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
    (target,) = method.loss_terms(step)
    assert (target.name, target.held, target.weight) == ("target", False, 1)


def test_salun_preserves_a_retain_on_its_own_latents(tiny_sd, dog):
    """Each has a trajectory of its own; there the base has no loss, and on the target's latents it would have one."""
    caches, seen = {term.text: bank(tiny_sd, term.text) for term in dog.train_retains}, []
    for step in erase_steps(tiny_sd, dog, EraseConfig("salun", steps=1)):
        seen.append(step)
    assert seen[0].total == 50 * (1 + len(caches)) and seen[-1].losses["retains"] < 1e-10 < seen[-1].losses["target"]
    step = dataclasses.replace(draw(tiny_sd, dog, "salun", None), own=caches)
    assert METHODS["salun"].losses(step)["retains"] < 1e-10
    swapped = dict(zip(caches, [*list(caches.values())[1:], caches["cat"]], strict=True))
    assert METHODS["salun"].losses(dataclasses.replace(step, own=swapped))["retains"] > 1e-10


def test_the_trajectories_of_further_prompts_are_their_own(tiny_sd):
    """Together as many as the steps need, at least one each, and none is that of the steps."""
    few, many = (EraseConfig("salun", steps=steps, microbatch_size=1) for steps in (100, 350))
    assert own_groups(few, ["a", "b", "c"]) == {"a": [range(2, 3)], "b": [range(3, 4)], "c": [range(4, 5)]}
    assert own_groups(many, ["a"]) == {"a": [range(7, 13), range(13, 14)]} and own_groups(few, []) == {}


def test_ca_gives_the_start_of_the_text_no_gradient(tiny_sd, dog):
    """K and V of its state are as they were, and the weights learn from the other states alone."""
    moment, name = bank(tiny_sd, "cat").at(0), "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    weight = dict(tiny_sd.unet.named_parameters())[name].detach().clone().requires_grad_()
    states = tiny_sd.embed(["dog"])

    def gradient(states, detached):
        with METHODS["ca"].attached(tiny_sd, dog, {}) if detached else nullcontext():
            e = tiny_sd.predict(moment.x, moment.t, states, {name: weight})
        return e.detach(), torch.autograd.grad(e.square().sum(), weight)[0]

    (e, cut), (whole_e, whole) = gradient(states, True), gradient(states, False)
    assert torch.equal(e, whole_e) and not torch.allclose(cut, whole)
    # What is cut is a product with the start's state alone: of rank one, in its direction.
    rows = (whole - cut) / (whole - cut).norm(dim=1, keepdim=True)
    start = states[0, 0] / states[0, 0].norm()
    torch.testing.assert_close((rows @ start).abs(), torch.ones(len(rows)), atol=1e-3, rtol=0)
