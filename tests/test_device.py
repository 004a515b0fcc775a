"""Everything that trains and draws puts its tensors where the model is: shown without a GPU, on `other_device`."""

import pytest
import torch

from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig
from crce.models import text_space
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps
from tests.other_device import NAME, OtherDevice, Wrapped

SHORT = {"steps": 1, "corefs": 2, "retains": 2}


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
def test_every_method_trains_and_draws_there_as_here(elsewhere, tiny_sd, dog, method):
    config = EraseConfig(method, **SHORT)
    *_, here = erase_steps(tiny_sd, dog, config)
    *_, there = erase_steps(elsewhere, dog, config)
    ours, theirs = here.weights(), there.weights()
    for name, tensor in theirs.tensors.items():
        assert isinstance(tensor, Wrapped)
        torch.testing.assert_close(tensor.cpu(), ours.tensors[name], atol=1e-4, rtol=1e-3)
    with ours.applied(tiny_sd):
        before = tiny_sd.draw(["dog", "cat"], [0, 1], 2, 3.0)
    # As loaded from a file: on the CPU.
    with ours.applied(elsewhere):
        after = elsewhere.draw(["dog", "cat"], [0, 1], 2, 3.0)
    torch.testing.assert_close(after.cpu(), before, atol=1e-3, rtol=1e-2)
    assert elsewhere.generate("dog", steps=2).size == (16, 16)


def test_a_run_is_kept_and_continued_there(elsewhere, dog, tmp_path):
    file, config = tmp_path / "checkpoint", EraseConfig(steps=2, corefs=2, retains=2, checkpoint_every=1)
    first = next(s for s in erase_steps(elsewhere, dog, config, checkpoint=file) if s.phase == "train")
    assert (first.number, first.kept) == (1, 1)
    *_, second = erase_steps(elsewhere, dog, config, checkpoint=file, resume=True)
    assert second.number == 2


def test_distances_are_measured_there(elsewhere, tiny_sd, dog):
    ours, theirs = (text_space.measure_distances(model, dog) for model in (tiny_sd, elsewhere))
    assert [row["cosine"] for row in theirs["terms"]] == pytest.approx(
        [row["cosine"] for row in ours["terms"]], abs=1e-3
    )
