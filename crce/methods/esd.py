"""ESD: erase with the model's own negative guidance (Gandikota et al., ICCV 2023)."""

from crce.methods.losses import Draw, Pull, push


def esd(draw: Draw) -> list[Pull]:
    """Eq. 1: L = ‖ε_θ(x_t, c, t) − anchor(x_t, c, t)‖²."""
    return [push("target", draw.model.embed([draw.spec.target])[0])]
