"""MACE by its three stages: what each promises, on real classes."""

import dataclasses
import random

import pytest
import torch

from crce.config import EraseConfig
from crce.methods.attention import attention_maps, concept_tokens, token_positions
from crce.methods.losses import StepContext
from crce.methods.mace import (
    PAPERS_PROMPTS,
    Mace,
    _masked_attention,
    _prompts,
    _second_moment,
    concept_mask,
    fusion_shares,
    pair_contexts,
)
from crce.methods.parameters import keys_values
from crce.methods.registry import METHODS, method_of
from crce.training.latent_cache import sample_latents, shuffle_latents
from crce.training.loop import erase_steps

CONFIG = EraseConfig("mace", steps=40, lr=2e-2)
DAMPING = 1000 / PAPERS_PROMPTS


@pytest.fixture
def cat(dog):
    return dataclasses.replace(dog, target="cat", corefs=())


@pytest.fixture
def trained(tiny_sd, dog, cat):
    """Tensors of two concepts as after training: both B are no longer zero."""
    names = keys_values(tiny_sd.unet)
    tensors = METHODS["mace"].start(tiny_sd, (dog, cat), CONFIG, names)
    rng = torch.Generator().manual_seed(3)
    return {n: torch.randn(t.shape, generator=rng) if n.startswith("up/") else t.detach() for n, t in tensors.items()}


def test_the_prompts_with_and_without_the_concept_are_paired_around_it(tiny_sd, dog):
    """ "a photo of dog" and "a photo of" agree up to the name; after it the first padding meets the first."""
    rows, length = pair_contexts(tiny_sd, (dog,)), tiny_sd.tokenizer.model_max_length
    per_prompt = length - len(token_positions(tiny_sd, "dog", "dog"))
    with_it, without = (part.unflatten(0, (-1, per_prompt)) for part in (rows.c, rows.g))
    text, bare = "a photo of dog", "a photo of"
    place, end = token_positions(tiny_sd, text, "dog")[0], len(tiny_sd.tokenizer(text).input_ids) - 1
    index = _prompts(dog).index(text)
    torch.testing.assert_close(with_it[index, :place], without[index, :place], atol=1e-5, rtol=0)
    assert torch.equal(with_it[index, place], tiny_sd.embed([text])[0, end])
    assert torch.equal(without[index, place], tiny_sd.embed([bare])[0, len(tiny_sd.tokenizer(bare).input_ids) - 1])


def test_the_refinement_brings_what_surrounds_the_concept_to_where_it_is_without_it(tiny_sd, dog):
    """As near as λ allows: the gradient of what stage 1 minimises vanishes there, and not at the base."""
    names, base = keys_values(tiny_sd.unet), dict(tiny_sd.unet.named_parameters())
    tensors, rows = METHODS["mace"].start(tiny_sd, (dog,), CONFIG, names), pair_contexts(tiny_sd, (dog,))

    def missed(name, w):
        return rows.c @ w.T - rows.g @ base[name].T

    for name in names:
        gradients = [
            (missed(name, w).T * rows.alpha @ rows.c + DAMPING * (w - base[name])).norm()
            for w in (tensors[name], base[name])
        ]
        assert gradients[0] < 1e-3 * gradients[1] and not tensors[name].requires_grad
        assert missed(name, tensors[name]).norm() < missed(name, base[name]).norm()


def test_before_training_the_adapters_do_nothing_and_each_has_its_own(tiny_sd, dog, cat, trained):
    names = keys_values(tiny_sd.unet)
    fresh = METHODS["mace"].start(tiny_sd, (dog, cat), CONFIG, names)
    assert all(torch.equal(METHODS["mace"].replaced(tiny_sd, dog, fresh)[name], fresh[name]) for name in names)
    mine, others = METHODS["mace"].replaced(tiny_sd, dog, trained), METHODS["mace"].replaced(tiny_sd, cat, trained)
    for name in names:
        change = mine[name] - trained[name]
        assert torch.linalg.matrix_rank(change, rtol=1e-4) == 1 and not torch.allclose(
            change, others[name] - trained[name]
        )


def test_the_fusion_is_the_minimum_of_what_it_minimises(tiny_sd, dog, cat, trained):
    """The gradient of the sum over both concepts vanishes there, and not at the refined weights."""

    def gradient(name, w):
        parts = [DAMPING * (w - trained[name]).double()]
        for spec in (dog, cat):
            parts.append(
                (w - METHODS["mace"].replaced(tiny_sd, spec, trained)[name]).double()
                @ _second_moment(tiny_sd, spec).double()
            )
        return sum(parts).norm()

    for name, w in METHODS["mace"].finish(tiny_sd, (dog, cat), trained).items():
        assert gradient(name, w) < 1e-4 * gradient(name, trained[name])


def test_as_lambda_goes_to_zero_each_adapter_works_on_its_own_states_and_on_no_others():
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(3, 24, generator=rng), torch.randn(5, 24, generator=rng)
    missed = []
    for damping in (1.0, 1e-2, 1e-4):
        first, second = fusion_shares([one.T @ one, two.T @ two], damping)
        own = (one @ first.T - one, two @ second.T - two)
        missed.append(max(part.abs().max().item() for part in (*own, one @ second.T, two @ first.T)))
    assert missed == sorted(missed, reverse=True) and missed[0] > 0.05 and missed[-1] < 1e-3


def test_the_mask_is_where_the_words_are_looked_at():
    """Two layers of two sizes, which agree on the left half."""
    maps = [torch.full((1, 2, side * side, 5), 0.1) for side in (2, 4)]
    for found, side in zip(maps, (2, 4), strict=True):
        found.view(1, 2, side, side, 5)[:, :, :, : side // 2, 1:3] = 0.6
    mask = concept_mask(maps, [1, 2])
    assert mask.shape == (1, 1, 4, 4)
    assert (mask[..., :2] == 1).all() and (mask[..., 3] == 0).all()
    assert torch.equal(_masked_attention(maps[0], mask, [1])[0, 0, :, 0].view(2, 2)[:, 0], torch.full((2,), 0.6))


def test_the_attention_inside_the_mask_falls(tiny_sd, dog):
    """That of the fused weights on the concept's own prompts, against the refined ones."""
    *_, step = erase_steps(tiny_sd, dog, CONFIG)
    names = keys_values(tiny_sd.unet)
    refined = METHODS["mace"].start(tiny_sd, (dog,), CONFIG, names)
    bank = shuffle_latents(list(sample_latents(tiny_sd, "dog", CONFIG)), CONFIG.seed)

    def attention(weights):
        draws = [StepContext(tiny_sd, dog, CONFIG, {}, weights, bank.at(i), random.Random(i)) for i in range(20)]
        with torch.no_grad():
            return sum(METHODS["mace"].losses(draw)["target"] for draw in draws).item()

    assert attention(step.weights().tensors) < 0.9 * attention({name: refined[name] for name in names})


def test_a_resumed_run_of_two_concepts_ends_bit_identical(tiny_sd, dog, cat, tmp_path):
    config, file = EraseConfig("mace", steps=4, lr=1e-2, checkpoint_every=3), tmp_path / "checkpoint.safetensors"
    *_, whole = erase_steps(tiny_sd, (dog, cat), config)
    for step in erase_steps(tiny_sd, (dog, cat), config, checkpoint=file):
        if (step.phase, step.number) == ("train", 5):
            break
    *_, resumed = erase_steps(tiny_sd, (dog, cat), config, checkpoint=file, resume=True)
    assert whole.number == resumed.number == 8
    assert all(torch.equal(w, resumed.weights().tensors[name]) for name, w in whole.weights().tensors.items())


def test_the_adapter_starts_as_a_lora_layer_of_rank_one(tiny_sd, dog):
    """diffusers' own: A with a standard deviation of 1 / rank, B of zeros."""
    names = keys_values(tiny_sd.unet)
    tensors = METHODS["mace"].start(tiny_sd, (dog,), CONFIG, names)
    down = torch.cat([tensors[f"down/{dog.slug}/{name}"].flatten() for name in names]).detach()
    assert down.std() == pytest.approx(1, abs=0.1) and abs(down.mean()) < 0.15
    assert all(not tensors[f"up/{dog.slug}/{name}"].any() for name in names)


def test_the_end_and_the_paddings_are_silenced_with_the_words(tiny_sd, dog):
    """All from the end mark on: the loss is that of the concept's words and of all after them."""
    text = "a photo of dog"
    words, end = token_positions(tiny_sd, text, "dog"), len(tiny_sd.tokenizer(text).input_ids) - 1
    assert concept_tokens(tiny_sd, text, "dog") == [*words, *range(end, 77)] and words[-1] == end - 1
    bank = shuffle_latents(list(sample_latents(tiny_sd, "dog", CONFIG)), 0)
    draw = StepContext(tiny_sd, dog, CONFIG, {}, {}, bank.at(0), random.Random(0))
    prompt = random.Random(0).choice(_prompts(dog))
    with torch.no_grad(), attention_maps(tiny_sd.unet) as maps:
        tiny_sd.predict(draw.sample.x, draw.sample.t, tiny_sd.embed([prompt]))
    words, end = token_positions(tiny_sd, prompt, "dog"), len(tiny_sd.tokenizer(prompt).input_ids) - 1
    mask = concept_mask(maps, words)
    told = sum(_masked_attention(found, mask, [*words, *range(end, 77)]).norm() for found in maps)
    torch.testing.assert_close(METHODS["mace"].losses(draw)["target"], told)


def test_lambda_says_how_far_both_closed_forms_go(tiny_sd, dog):
    """The paper's range: less of it brings the states nearer to those without the concept, in the run's result too."""
    names, rows, missed = keys_values(tiny_sd.unet), pair_contexts(tiny_sd, (dog,)), []
    base = dict(tiny_sd.unet.named_parameters())
    for damping in (1000.0, 100.0, 10.0):
        config = dataclasses.replace(CONFIG, steps=1, lr=1e-9, damping=damping)
        assert method_of(config) == Mace(damping=damping)
        *_, step = erase_steps(tiny_sd, dog, config)
        found = step.weights().tensors
        missed.append(sum((rows.c @ found[n].T - rows.g @ base[n].T).norm().item() for n in names))
    assert missed == sorted(missed, reverse=True) and missed[-1] < 0.9 * missed[0]
