"""Receler: where its erasers act, and against what."""

import copy
import random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from crce.config import EraseConfig
from crce.methods import receler
from crce.methods.attention import cross_attention_layers
from crce.methods.losses import StepContext
from crce.methods.registry import METHODS
from crce.models.diffusion import Diffusion
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
    def mean_energy(weight):
        tensors = METHOD.start(tiny_sd, (dog,), CONFIG, METHOD.trainable(tiny_sd.unet))
        return energy_after(tiny_sd, dog, bank, tensors, weight)

    free, held = mean_energy(0.0), mean_energy(receler.LAMBDA)
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
    hidden = {"soft/dog", "soft/dog/exp_avg", "soft/dog/exp_avg_sq", "soft/dog/step"}
    assert tensors.keys() - kept.keys() == hidden
    assert all(t.requires_grad for t in kept.values()) and not tensors["soft/dog"].requires_grad


def test_only_what_is_added_outside_counts():
    everywhere = {"layer": torch.ones(1, 16, 8)}
    half = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert receler.mean_energy(everywhere, half).item() == 1
    added = torch.zeros(1, 4, 4, 8)
    added[:, :, :2] = 3.0
    assert receler.mean_energy({"layer": added.flatten(1, 2)}, half).item() == 9
    assert receler.mean_energy({"layer": added.flatten(1, 2)}, 1 - half).item() == 0
    assert receler.mean_energy(everywhere, torch.zeros(2, 2)).item() == 0


def test_there_are_soft_words_in_proportion_to_the_text(tiny_sd, dog, tensors):
    assert len(tensors["soft/dog"]) == 16 and len(tiny_sd.embed(["dog"])[0]) == 77
    parts = {"text_encoder": tiny_sd.text_encoder, "unet": tiny_sd.unet, "vae": tiny_sd.vae}
    tokenizer = copy.deepcopy(tiny_sd.tokenizer)
    tokenizer.model_max_length = 32
    scheduler = DDIMScheduler.from_config(tiny_sd.schedule)
    pipeline = SimpleNamespace(components={**parts, "tokenizer": tokenizer, "scheduler": scheduler})
    short = Diffusion(pipeline, tiny_sd.base, "cpu", torch.float32)
    assert len(METHOD.start(short, (dog,), CONFIG, METHOD.trainable(short.unet))["soft/dog"]) == 7


def test_adams_moments_of_the_soft_words_go_on_in_the_next_step(tiny_sd, dog, bank, tensors):
    steps = []
    for number in range(3):
        receler.receler_losses(drawn(tiny_sd, dog, bank, tensors, number))
        steps.append((tensors["soft/dog/step"].item(), tensors["soft/dog/exp_avg"].clone()))
    assert [count for count, _ in steps] == [4, 8, 12] and not torch.equal(steps[0][1], steps[1][1])
    # With the moments of the last step the words move elsewhere than with none.
    fresh = {**tensors, "soft/dog": tensors["soft/dog"].clone()}
    fresh |= {name: torch.zeros_like(tensor) for name, tensor in tensors.items() if name.startswith("soft/dog/")}
    for state in (tensors, fresh):
        receler.receler_losses(drawn(tiny_sd, dog, bank, state, 3))
    assert not torch.allclose(tensors["soft/dog"], fresh["soft/dog"], atol=1e-3)


def test_an_eraser_has_biases_and_one_without_them_can_still_be_read(tiny_sd):
    layer = next(iter(cross_attention_layers(tiny_sd.unet)))
    channels = tiny_sd.unet.get_submodule(layer).to_out[0].weight.shape[0]
    rng = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, channels, generator=rng), torch.randn(channels, 4, generator=rng)

    def predict(down, up):
        with receler.attach_erasers(tiny_sd, {f"{layer}.down": down, f"{layer}.up": up}):
            return tiny_sd.predict(tiny_sd.noise([0]), torch.tensor([500]), tiny_sd.embed(["dog"]))

    def column(value):
        return [torch.cat([part, torch.full((len(part), 1), value)], dim=1) for part in (down, up)]

    assert torch.equal(predict(down, up), predict(*column(0.0)))
    assert not torch.allclose(predict(down, up), predict(*column(1.0)), atol=1e-3)
