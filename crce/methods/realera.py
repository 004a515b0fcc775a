"""RealEra: neighbours of the target drawn at random in the encoder's space (Liu et al., 2024), as the CRCE paper
re-implemented it on ESD-x strict (App. B)."""

from torch import Tensor

from crce.methods.crce import around
from crce.methods.esd import esd
from crce.methods.losses import Draw, Pull, hold, push

INSIDE, OUTSIDE = 10, 2


def realera(draw: Draw) -> list[Pull]:
    """L = L_ESD + 1/M Σ ‖ε_θ(x_t, c + δ, t) − anchor(x_t, c, t)‖² + 1/N Σ ‖ε_θ(x_t, c + μ, t) − ε(x_t, c + μ, t)‖².

    M = 10 points c + δ inside a ball around the target go where it goes, N = 2 points c + μ outside stay, all new in
    each step and of weight 1. No radius is published, and it is read as in CRCE-Sphere: the ball reaches as far as a
    randomly drawn training coref. A δ is 0 to 1 such radii long, a μ 1 to 2. The retains are never seen.
    """
    inside = [push("corefs", _point(draw, 0), 1 / INSIDE) for _ in range(INSIDE)]
    outside = [hold("retains", _point(draw, 1), 1 / OUTSIDE) for _ in range(OUTSIDE)]
    return [*esd(draw), *inside, *outside]


def _point(draw: Draw, nearest: int) -> Tensor:
    return around(draw, draw.rng.choice(draw.spec.train_corefs), nearest + draw.rng.random())
