"""ESD: erase with the model's own negative guidance (Gandikota et al., ICCV 2023)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from crce.methods.base import GradientMethod
from crce.methods.losses import LossTerm, StepContext, erase_term
from crce.methods.parameters import keys_values


@dataclass(frozen=True)
class Esd(GradientMethod):
    """Eq. 1: L = ‖ε_θ(x_t, c, t) − anchor(x_t, c, t)‖².

    select: which weights are trained; ESD-x strict takes K and V of the cross-attention (CRCE, App. B). As in the
    public diffusers script the latents come from the frozen model. Its default η = 2 is the paper's 1, and ours.
    """

    select: Callable[[nn.Module], list[str]] = keys_values

    def trainable(self, unet: nn.Module) -> list[str]:
        return self.select(unet)

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        return [erase_term("target", context.embed(context.spec.target))]
