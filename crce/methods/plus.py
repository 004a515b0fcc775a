"""CRCE-plus, ours: CRCE with its loss unchanged, started from the result of the closed form."""

from dataclasses import dataclass

from crce.config import ResolvedConfig
from crce.methods.base import Specs, Tensors
from crce.methods.esd import Esd
from crce.methods.uce import crce_uce
from crce.models.diffusion import Diffusion


@dataclass(frozen=True)
class CrcePlus(Esd):
    """damping: λ of the closed form; None means the base's. anchor: what it draws the target as; None means nothing."""

    damping: float | None = None
    anchor: str | None = None

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """The weights after CRCE-UCE: every training coref has moved at once, where CRCE draws M in a step."""
        moved = crce_uce(model, specs, names, self.damping, self.anchor)
        return {name: tensor.requires_grad_() for name, tensor in moved.items()}
