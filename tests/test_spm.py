"""SPM: what it is pulled by; its gate is in test_adapters."""

import random

import pytest
import torch

from crce.config import EraseConfig
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
