"""CRCE-plus, ours: CRCE that starts where the instant edit ends."""

from torch import Tensor

from crce.concepts import ConceptSpec
from crce.config import EraseConfig
from crce.diffusion import Diffusion
from crce.methods.crce import crce
from crce.methods.esd import esd
from crce.methods.pulls import Draw, Pull
from crce.methods.uce import crce_uce


def crce_plus(draw: Draw) -> list[Pull]:
    """CRCE's own loss (§3.2.3), unchanged."""
    return [*esd(draw), *crce(draw)]


def from_closed_form(
    model: Diffusion, specs: tuple[ConceptSpec, ...], config: EraseConfig, names: list[str]
) -> dict[str, Tensor]:
    """The weights after the closed form: every training coref has moved at once, where CRCE draws 5 in a step."""
    return {name: tensor.requires_grad_() for name, tensor in crce_uce(model, specs, names).items()}
