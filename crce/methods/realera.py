"""RealEra: neighbours of the target drawn at random in the encoder's space (Liu et al., 2024), as the CRCE paper
re-implemented it on ESD-x strict (App. B)."""

from torch import Tensor

from crce.methods.crce import around
from crce.methods.esd import Esd
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term

INSIDE, OUTSIDE = 10, 2


class RealEra(Esd):
    """L = L_ESD + 1/M Σ ‖ε_θ(x_t, c + δ, t) − anchor(x_t, c, t)‖² + 1/N Σ ‖ε_θ(x_t, c + μ, t) − ε(x_t, c + μ, t)‖².

    M = 10 points c + δ inside a ball around the target go where it goes, N = 2 points c + μ outside stay, all new in
    each step and of weight 1. No radius is published; ours is that of CRCE-Sphere: the ball reaches as far as a
    randomly drawn training coref. A δ is 0 to 1 such radii long, a μ 1 to 2. The retains are never seen.
    """

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        inside = [erase_term("corefs", _point(context, 0), 1 / INSIDE) for _ in range(INSIDE)]
        outside = [preserve_term("retains", _point(context, 1), 1 / OUTSIDE) for _ in range(OUTSIDE)]
        return [*super().loss_terms(context), *inside, *outside]


def _point(context: StepContext, nearest: int) -> Tensor:
    return around(context, context.rng.choice(context.spec.train_corefs), nearest + context.rng.random())
