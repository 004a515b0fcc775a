"""Every method, by name: which tensors it changes, and how. `erase` does the rest."""

from collections.abc import Callable
from dataclasses import dataclass

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from crce.concepts import ConceptSpec
from crce.diffusion import Diffusion
from crce.methods.crce import crce, crce_fixed, crce_sphere
from crce.methods.esd import esd
from crce.methods.pulls import Draw, pulling
from crce.methods.uce import crce_uce, uce


@dataclass(frozen=True)
class Method:
    """One that trains: trainable(unet) names the tuned tensors; losses(draw) gives scalars by part."""

    trainable: Callable[[nn.Module], list[str]]
    losses: Callable[[Draw], dict[str, Tensor]]


@dataclass(frozen=True)
class ClosedForm:
    """One that is solved at once: edit(model, spec, names) gives the tensors that trainable(unet) names, changed."""

    trainable: Callable[[nn.Module], list[str]]
    edit: Callable[[Diffusion, ConceptSpec, list[str]], dict[str, Tensor]]


def cross_attention(unet: nn.Module) -> list[str]:
    """All projections of the cross-attention: ESD-x."""
    layers = [n for n, m in unet.named_modules() if isinstance(m, Attention) and m.is_cross_attention]
    return [name for name, _ in unet.named_parameters() if name.startswith(tuple(f"{n}." for n in layers))]


def keys_values(unet: nn.Module) -> list[str]:
    """Only K and V of the cross-attention, the two that see the text: ESD-x strict."""
    return [name for name in cross_attention(unet) if ".to_k." in name or ".to_v." in name]


METHODS = {
    "crce": Method(keys_values, pulling(crce)),
    "crce-fixed": Method(keys_values, pulling(crce_fixed)),
    "crce-sphere": Method(keys_values, pulling(crce_sphere)),
    "esd-x-strict": Method(keys_values, pulling(esd)),
    "esd-x": Method(cross_attention, pulling(esd)),
    "crce-uce": ClosedForm(keys_values, crce_uce),
    "uce": ClosedForm(keys_values, uce),
}
