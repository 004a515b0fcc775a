"""The losses of the ESD / CRCE / RealEra family: each a list of weighted pulls on the tuned model's predictions."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from crce.concepts import ConceptSpec
from crce.config import EraseConfig
from crce.diffusion import Diffusion, Moment


@dataclass(frozen=True)
class Draw:
    """All that a method may look at in one step: the model, the tuned weights, a moment of one latent, a dice."""

    model: Diffusion
    spec: ConceptSpec
    config: EraseConfig
    weights: dict[str, Tensor]
    moment: Moment
    rng: Random

    @property
    def anchor(self) -> Tensor:
        """e_∅ − η (e_c − e_∅): where the target is pushed (ESD eq. 1, in the paper's convention of η)."""
        return self.moment.e_0 - self.config.eta * (self.moment.e_c - self.moment.e_0)


@dataclass(frozen=True)
class Pull:
    """ε_θ(x_t, state, t) is pulled to the anchor, or held at the frozen model's own prediction."""

    part: str
    state: Tensor
    held: bool
    weight: float


def push(part: str, state: Tensor, weight: float = 1.0) -> Pull:
    """Towards the target's anchor: erase. `state` [L, d]."""
    return Pull(part, state, False, weight)


def hold(part: str, state: Tensor, weight: float = 1.0) -> Pull:
    """Stay where the base is: keep. `state` [L, d]."""
    return Pull(part, state, True, weight)


def pulling(choose: Callable[[Draw], list[Pull]]) -> Callable[[Draw], dict[str, Tensor]]:
    """Makes a method's losses of its pulls: weight · MSE, summed by part, all rows in one batch."""

    def losses(draw: Draw) -> dict[str, Tensor]:
        pulls = choose(draw)
        predicted = _predict(draw, [p.state for p in pulls], draw.weights)
        with torch.no_grad():
            held = iter(_predict(draw, [p.state for p in pulls if p.held]))
        parts: dict[str, Tensor] = defaultdict(float)
        for pull, e in zip(pulls, predicted, strict=True):
            goal = next(held) if pull.held else draw.anchor[0]
            parts[pull.part] = parts[pull.part] + pull.weight * F.mse_loss(e, goal)
        return dict(parts)

    return losses


def _predict(draw: Draw, states: list[Tensor], weights: dict[str, Tensor] | None = None) -> Tensor:
    """ε for each state at the one latent of this step: [n, C, H, W]."""
    if not states:
        return torch.empty(0)
    n = len(states)
    x, t = draw.moment.x.expand(n, -1, -1, -1), draw.moment.t.expand(n)
    return draw.model.predict(x, t, torch.stack(states), weights)
