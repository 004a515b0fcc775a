"""Receler: where its erasers act, and against what."""

import random
from functools import partial

import pytest
import torch

from crce.config import EraseConfig
from crce.methods import receler
from crce.methods.losses import StepContext
from crce.methods.registry import METHODS
from crce.training.latent_cache import sample_latents, shuffle_latents

CONFIG = EraseConfig("receler", steps=50)
METHOD = METHODS["receler"]


@pytest.fixture(scope="module")
def bank(tiny_sd):
    return shuffle_latents(list(sample_latents(tiny_sd, "dog", CONFIG)), 0)


@pytest.fixture
def tensors(tiny_sd, dog):
    return METHOD.start(tiny_sd, (dog,), CONFIG, METHOD.trainable(tiny_sd.unet))


def drawn(model, spec, bank, tensors, number=0):
    adapter = partial(METHOD.attached, model, spec, tensors)
    return StepContext(model, spec, CONFIG, tensors, {}, bank.at(number), random.Random(number), adapter)


def energy_after(model, spec, bank, tensors, weight):
    """Trained on every other latent; then the sum over some of what is added outside."""
    own = [t for t in tensors.values() if t.requires_grad]
    adam = torch.optim.Adam(own, lr=3e-2)
    for number in range(0, 50, 2):
        adam.zero_grad()
        sum(receler.receler_losses(drawn(model, spec, bank, tensors, number), weight).values()).backward()
        adam.step()
    found = [receler.receler_losses(drawn(model, spec, bank, tensors, number), 1.0) for number in range(1, 50, 10)]
    return sum(losses["outside"].item() for losses in found)


def test_the_regulariser_keeps_the_erasers_inside(tiny_sd, dog, bank):
    def energy(weight):
        tensors = METHOD.start(tiny_sd, (dog,), CONFIG, METHOD.trainable(tiny_sd.unet))
        return energy_after(tiny_sd, dog, bank, tensors, weight)

    free, held = energy(0.0), energy(receler.LAMBDA)
    assert 0 < held < 0.5 * free


def test_the_soft_words_learn_to_bring_the_target_back_and_go_on_in_the_next_step(tiny_sd, dog, bank, tensors):
    (state,), first = tiny_sd.embed(["dog"]), tensors["soft/dog"].clone()

    def distance(soft):
        draw = drawn(tiny_sd, dog, bank, tensors)
        said = torch.cat([state[:4], soft, state[4 + len(soft) :]])
        return (draw.predict([said]) - draw.sample.e_c).square().mean().item()

    receler.receler_losses(drawn(tiny_sd, dog, bank, tensors))
    once = tensors["soft/dog"].clone()
    assert distance(once) < distance(first)
    receler.receler_losses(drawn(tiny_sd, dog, bank, tensors))
    assert distance(tensors["soft/dog"]) < distance(once)


def test_the_erasers_are_published_without_the_soft_words(tiny_sd, dog, tensors):
    kept = METHOD.finish(tiny_sd, (dog,), tensors)
    assert tensors.keys() - kept.keys() == {"soft/dog"}
    assert all(t.requires_grad for t in kept.values()) and not tensors["soft/dog"].requires_grad


def test_only_what_is_added_outside_counts():
    everywhere = {"layer": torch.ones(1, 16, 8)}
    half = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert receler.energy(everywhere, half).item() == 1
    added = torch.zeros(1, 4, 4, 8)
    added[:, :, :2] = 3.0
    assert receler.energy({"layer": added.flatten(1, 2)}, half).item() == 9
    assert receler.energy({"layer": added.flatten(1, 2)}, 1 - half).item() == 0
    assert receler.energy(everywhere, torch.zeros(2, 2)).item() == 0
