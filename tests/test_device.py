"""Everything that trains and draws puts its tensors where the model is: shown without a GPU, on `other_device`."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch

from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig, resolve_config
from crce.models import text_space
from crce.models.diffusion import Diffusion
from crce.training.loop import TrainState, erase_steps, noise_sample, solve_closed_form, train_once
from tests.other_device import NAME, OtherDevice, Wrapped


@pytest.fixture(scope="module")
def elsewhere(tiny_sd_dir):
    """The tiny model on the other device."""
    with OtherDevice():
        yield Diffusion.load(str(tiny_sd_dir), device=NAME)


def test_a_tensor_left_on_the_cpu_fails():
    with OtherDevice():
        there = torch.ones(2, device=NAME)
        assert there.device.type == NAME and (there + 1).sum().item() == 4
        assert (there.cpu() + torch.ones(2)).tolist() == [2, 2]
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2)
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(2, device=NAME, generator=torch.Generator())


@pytest.mark.parametrize("method", METHOD_FACTS)
def test_every_method_trains_a_step_there_as_here(elsewhere, tiny_sd, dog, method):
    config = resolve_config(EraseConfig(method, steps=1, corefs=2, retains=2), tiny_sd.base)
    (ours, here), (theirs, there) = (erased(model, dog, config) for model in (tiny_sd, elsewhere))
    assert there == pytest.approx(here, rel=1e-2, abs=1e-6)
    assert theirs.tensors.keys() == ours.tensors.keys()
    assert all(isinstance(tensor, Wrapped) for tensor in theirs.tensors.values())
    # As loaded from a file: on the CPU.
    with ours.applied(tiny_sd), ours.applied(elsewhere):
        here, there = (model.draw(["dog", "cat"], [0, 1], 1, 3.0) for model in (tiny_sd, elsewhere))
    torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-2)


def erased(model, spec, config):
    """The result and the losses of one step, on a latent of noise."""
    if config.closed_form:
        return solve_closed_form(model, spec, config), {}
    state = TrainState(model, (spec,), config)
    losses = train_once(state, [noise_sample(model, config)])
    return state.result(), losses


def test_a_run_is_made_kept_and_continued_there(elsewhere, dog, tmp_path):
    """The latents too, in one batch and in parts that wait in main memory."""
    file, config = tmp_path / "checkpoint", EraseConfig(steps=2, corefs=1, retains=1, checkpoint_every=1)
    with closing(erase_steps(elsewhere, dog, config, checkpoint=file)) as steps:
        first = next(step for step in steps if step.phase == "train")
    assert (first.number, first.kept) == (1, 1)
    fewer = replace(config, microbatch_size=1)
    *_, second = erase_steps(elsewhere, dog, fewer, checkpoint=file, resume=True)
    assert second.number == 2
    with second.weights().applied(elsewhere):
        assert elsewhere.generate("dog", steps=1).size == (16, 16)


def test_distances_are_measured_there(elsewhere, tiny_sd, dog):
    ours, theirs = (text_space.measure_distances(model, dog) for model in (tiny_sd, elsewhere))
    assert [row["cosine"] for row in theirs["terms"]] == pytest.approx(
        [row["cosine"] for row in ours["terms"]], abs=1e-3
    )
