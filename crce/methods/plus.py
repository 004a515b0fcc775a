"""CRCE-plus, ours: CRCE, its loss unchanged, that starts where the instant edit ends."""

from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.methods.uce import crce_uce
from crce.models.diffusion import Diffusion


def from_closed_form(
    model: Diffusion, specs: tuple[ConceptSpec, ...], config: EraseConfig, names: list[str]
) -> dict[str, Tensor]:
    """The weights after the closed form: every training coref has moved at once, where CRCE draws 5 in a step."""
    return {name: tensor.requires_grad_() for name, tensor in crce_uce(model, specs, names).items()}
