"""Random neighbours of the target in the encoder's space: RealEra's ball, which CRCE-Sphere shares (CRCE, §4.3).

RealEra (Liu et al., 2024) draws c + δ with ‖δ‖ ≤ D₁ and holds points c + μ that lie further off. No radius and no law
is published. Ours: the radius is the distance of a randomly drawn training coref, in all hidden states of the encoder,
and a δ is 0 to 1 such radii long, a μ 1 to 2, uniformly. (Uniform in the ball's volume would put all on the shell: it
has L·d dimensions.) RealEra also bounds the cosine between c and c + δ, by values that are not published; ours does
not.
"""

import torch
from torch import Tensor

from crce.methods.losses import StepContext


def draw_inside(context: StepContext) -> Tensor:
    """c + δ [L, d], a random state inside the ball."""
    return _draw_point(context, 0)


def draw_outside(context: StepContext) -> Tensor:
    """c + μ [L, d], a random state outside, up to twice as far as the ball reaches."""
    return _draw_point(context, 1)


def _draw_point(context: StepContext, nearest: int) -> Tensor:
    """`nearest` to `nearest` + 1 times as far from the target as a training coref."""
    coref = context.rng.choice(context.spec.train_corefs)
    scale = nearest + context.rng.random()
    target, state = context.model.embed([context.spec.target, coref.text])
    rng = torch.Generator().manual_seed(context.rng.getrandbits(63))
    direction = torch.randn(target.shape, generator=rng).to(target)
    return target + direction * (scale * (state - target).norm() / direction.norm())
