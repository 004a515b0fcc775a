"""SPM: what it is pulled by; its gate is in test_adapters."""

import random

import pytest
import torch

from crce.config import EraseConfig
from crce.methods import spm
from crce.methods.losses import StepContext
from crce.methods.registry import METHODS
from crce.training.loop import erase_steps


def pulls(model, spec, seed=0):
    return METHODS["spm"].loss_terms(StepContext(model, spec, EraseConfig("spm"), {}, {}, None, random.Random(seed)))


def test_the_target_goes_and_random_states_of_its_length_stay(tiny_sd, dog):
    (target,) = tiny_sd.embed(["dog"])
    for seed in range(10):
        first, *held = pulls(tiny_sd, dog, seed)
        assert not first.held and first.weight == 1 and torch.equal(first.state, target)
        assert len(held) == 4 and all(p.held and p.weight == 250 for p in held)
        assert all(0.8 <= (p.state.norm() / target.norm()).item() <= 1.2 for p in held)
        assert len({p.state.sum().item() for p in held}) == 4


def test_the_anchors_are_drawn_anew_in_each_step_and_again_in_a_resumed_one(tiny_sd, dog):
    one, same, other = (pulls(tiny_sd, dog, seed)[1].state for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("part", ["target", "anchoring"])
def test_training_starts_from_the_base_itself(tiny_sd, dog, part):
    """The membranes add nothing yet: no loss where the base is held, and ESD's own where it is pushed."""

    def first(method):
        return next(
            s.losses for s in erase_steps(tiny_sd, dog, EraseConfig(method, steps=1, lr=1e-3)) if s.phase == "train"
        )

    if part == "anchoring":
        assert first("spm")[part] < 1e-8
    else:
        assert first("spm")[part] == pytest.approx(first("esd-x-strict")[part], rel=1e-4)


def test_the_rate_warms_up_and_falls_in_three_cosines():
    rates = [spm.warm_cosine(step, 60) for step in range(60)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1 and all(a >= b for a, b in zip(rates[10:26], rates[11:27], strict=True)) and rates[26] < 0.02
    restarts = [step for step in range(11, 60) if rates[step] > rates[step - 1]]
    assert len(restarts) == 2 and all(rates[step] > 0.99 for step in restarts)
    assert all(spm.warm_cosine(0, steps) == 1 for steps in range(1, 6))


def test_a_step_moves_by_the_schedules_rate(tiny_sd, dog):
    """Adam's first step of each weight is the learning rate: warming up over ten steps it is a tenth."""

    def first(method):
        start = METHODS[method].start(tiny_sd, (dog,), EraseConfig(method), METHODS[method].trainable(tiny_sd.unet))
        step = next(s for s in erase_steps(tiny_sd, dog, EraseConfig(method, steps=60, lr=1e-2)) if s.phase == "train")
        return max((tensor - start[name]).abs().max().item() for name, tensor in step.weights().tensors.items())

    assert first("spm") == pytest.approx(1e-3, rel=1e-2) and first("esd-x-strict") == pytest.approx(1e-2, rel=1e-2)
