"""Every method on a device other than the CPU, without a GPU: a tensor that is left on the CPU is an error."""

from itertools import islice

import pytest
import torch
from diffusers import StableDiffusionPipeline

from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig, resolve_config
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion, to_images
from crce.training.latent_cache import LatentCache, sample_latents, shuffle_latents
from crce.training.loop import TrainState, noise_caches, solve_closed_form, train_once
from tests.pretend_device import NAME, Far, PretendDevice


@pytest.fixture(scope="module")
def far(tiny_sd_dir):
    """The tiny model on the pretend device."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd_dir, safety_checker=None)
    with PretendDevice():
        return Diffusion(pipeline, str(tiny_sd_dir), NAME, torch.float32)


def take_one_step(model, spec, method) -> ErasedWeights:
    config = resolve_config(EraseConfig(method, steps=1, corefs=2, retains=2), model.base)
    if config.closed_form:
        return solve_closed_form(model, spec, config)
    state = TrainState(model, (spec,), config)
    train_once(state, noise_caches(state))
    return state.result()


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_a_method_trains_and_draws_on_its_device(far, tiny_sd, dog, tmp_path, method):
    expected = take_one_step(tiny_sd, dog, method)
    with PretendDevice():
        made = take_one_step(far, dog, method)
        assert all(isinstance(tensor, Far) for tensor in made.tensors.values())
        with made.applied(far):
            pictures = far.draw(["dog"], [0], 1, 3.0)
        assert pictures.device.type == NAME and to_images(pictures)[0].size == (16, 16)
        made.save(tmp_path / "delta.safetensors")
    found = ErasedWeights.load(tmp_path / "delta.safetensors").tensors
    assert found.keys() == expected.tensors.keys()
    # What was computed there is what the CPU computes; but Adam's first step takes the sign of a gradient, and of one
    # that is nearly zero rounding decides it.
    same = [found[n].isclose(tensor, atol=1e-4).flatten() for n, tensor in expected.tensors.items()]
    assert torch.cat(same).float().mean() > 0.98


def test_what_was_made_elsewhere_is_drawn_there(far, tiny_sd, dog):
    for method in ("crce-uce", "spm", "receler"):
        erased = take_one_step(tiny_sd, dog, method)
        with PretendDevice(), erased.applied(far):
            assert far.draw(["dog"], [0], 1, 3.0).device.type == NAME


@pytest.mark.parametrize("microbatch_size", [0, 1])
def test_the_latent_cache_lies_on_the_device_or_waits_elsewhere(far, dog, microbatch_size):
    config = resolve_config(EraseConfig(steps=1, corefs=1, retains=1, microbatch_size=microbatch_size), far.base)
    with PretendDevice():
        samples = list(islice(sample_latents(far, "dog", config), 2))
        assert all(isinstance(sample.x, Far) and isinstance(sample.e_c, Far) for sample in samples)
        waiting = [sample.to("cpu" if microbatch_size else far.device) for sample in samples]
        train_once(TrainState(far, (dog,), config), [LatentCache(shuffle_latents(waiting, 0))])


def test_a_tensor_left_on_the_cpu_is_an_error():
    with PretendDevice():
        there, here = torch.ones(3, device=NAME), torch.zeros(3)
        for mix in (lambda: there + here, lambda: torch.stack([there, here]), lambda: there @ here):
            with pytest.raises(RuntimeError, match="on the CPU, and other tensors on the device"):
                mix()
        # As CUDA does, it takes single values and indices from the CPU, and copies.
        assert (there + torch.tensor(2.0)).tolist() == (there + here.to(NAME) + 2)[[0, 1, 2]].tolist() == [3.0] * 3
        there.copy_(here)
    assert there.cpu().tolist() == [0.0] * 3
