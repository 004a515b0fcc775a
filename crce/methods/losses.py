"""The losses of the ESD / CRCE / RealEra family: each a list of weighted pulls on the tuned model's predictions."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion, NoisySample


@dataclass(frozen=True)
class StepContext:
    """All that a method may look at in one step: the model, the concept, a moment of one latent, a dice.

    tensors: what is tuned, by name. weights: what of the U-Net they replace (see `Method.weights`). adapter: hangs
    them on it (see `Method.adapter`).
    """

    model: Diffusion
    spec: ConceptSpec
    config: EraseConfig
    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]
    moment: NoisySample
    rng: Random
    adapter: Callable[[], AbstractContextManager] = nullcontext

    def predict(self, states: list[Tensor], tuned: bool = True) -> Tensor:
        """ε [n, C, H, W] of the tuned or the frozen model for each state [L, d], at the one latent of this step."""
        if not states:
            return torch.empty(0)
        n = len(states)
        x, t = self.sample.x.expand(n, -1, -1, -1), self.sample.t.expand(n)
        with self.adapter() if tuned else nullcontext():
            return self.model.predict(x, t, torch.stack(states), self.weights if tuned else None)


@dataclass(frozen=True)
class LossTerm:
    """ε_θ(x_t, state, t) is pulled to the goal, or held at the frozen model's own prediction."""

    part: str
    state: Tensor
    held: bool
    weight: float


def erase_term(part: str, state: Tensor, weight: float = 1.0) -> LossTerm:
    """Towards where the target goes (`Method.goal`): erase. `state` [L, d]."""
    return LossTerm(part, state, False, weight)


def preserve_term(part: str, state: Tensor, weight: float = 1.0) -> LossTerm:
    """Stay where the base is: keep. `state` [L, d]."""
    return LossTerm(part, state, True, weight)


def anchor(context: StepContext) -> Tensor:
    """e_∅ − η (e_c − e_∅) [1, C, H, W]: the opposite of the target (ESD eq. 1, in the paper's convention of η)."""
    moment = context.sample
    return moment.e_0 - context.config.eta * (moment.e_c - moment.e_0)


def term_losses(context: StepContext, pulls: list[LossTerm], goal: Tensor) -> dict[str, Tensor]:
    """The losses of the pulls: weight · MSE, summed by part, all rows in one batch."""
    # Before the tuned ones, which hold on to much memory until their backward pass.
    with torch.no_grad():
        held = iter(context.predict([p.state for p in pulls if p.held], tuned=False))
    predicted = context.predict([p.state for p in pulls])
    parts: dict[str, Tensor] = defaultdict(float)
    for pull, e in zip(pulls, predicted, strict=True):
        parts[pull.part] = parts[pull.part] + pull.weight * F.mse_loss(e, next(held) if pull.held else goal[0])
    return dict(parts)
