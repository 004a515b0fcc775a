"""ESD: erase with the model's own negative guidance (Gandikota et al., ICCV 2023)."""

from crce.methods.losses import LossTerm, StepContext, erase_term


def esd(context: StepContext) -> list[LossTerm]:
    """Eq. 1: L = ‖ε_θ(x_t, c, t) − anchor(x_t, c, t)‖²."""
    return [erase_term("target", context.model.embed([context.spec.target])[0])]
