"""RealEra: neighbours of the target drawn at random in the encoder's space (Liu et al., 2024), as the CRCE paper
re-implemented it on ESD-x strict (App. B)."""

from crce.methods.ball import draw_inside, draw_outside
from crce.methods.esd import Esd
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term

INSIDE, OUTSIDE = 10, 2


class RealEra(Esd):
    """L = L_ESD + 1/M Σ ‖ε_θ(x_t, c + δ, t) − anchor(x_t, c, t)‖² + 1/N Σ ‖ε_θ(x_t, c + μ, t) − ε(x_t, c + μ, t)‖².

    M = 10 points c + δ inside a ball around the target go where it goes, N = 2 points c + μ outside stay, all new in
    each step and of weight 1. The ball is described in `ball`; CRCE-Sphere shares it. The retains are never seen.

    As in the CRCE paper there is no closed form and no LoRA, which RealEra itself has.
    """

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        inside = [erase_term("corefs", draw_inside(context), 1 / INSIDE) for _ in range(INSIDE)]
        outside = [preserve_term("retains", draw_outside(context), 1 / OUTSIDE) for _ in range(OUTSIDE)]
        return [*super().loss_terms(context), *inside, *outside]
