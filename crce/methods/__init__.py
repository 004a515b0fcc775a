"""Every method, by name: which tensors it tunes and the losses of one step. The loop around them is `erase`."""

from collections.abc import Callable
from dataclasses import dataclass

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from crce.concepts import ConceptSpec, Term
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.methods.crce import crce, crce_fixed, crce_sphere
from crce.methods.esd import esd
from crce.methods.pulls import Draw, pulling


@dataclass(frozen=True)
class Method:
    """trainable(unet) names the tuned tensors; losses(draw) gives scalars by part; `lists` if it needs terms."""

    trainable: Callable[[nn.Module], list[str]]
    losses: Callable[[Draw], dict[str, Tensor]]
    lists: bool = True


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
    "esd-x-strict": Method(keys_values, pulling(esd), lists=False),
    "esd-x": Method(cross_attention, pulling(esd), lists=False),
}


def check(spec: ConceptSpec, config: EraseConfig) -> None:
    """Raises CrceError if the method draws more terms per step than the spec has for training."""
    if METHODS[config.method].lists:
        _enough(spec, "corefs", spec.train_corefs, config.corefs, "M")
        _enough(spec, "retains", spec.train_retains, config.retains, "N")


def _enough(spec: ConceptSpec, kind: str, terms: list[Term], wanted: int, letter: str) -> None:
    if len(terms) < wanted:
        raise CrceError(
            f"{spec.name!r} has {len(terms)} training {kind} and each step draws {wanted} ({letter}). "
            f"Add {kind}, or lower --{kind} to {len(terms)} (0 leaves them out)."
        )
