"""Which of the U-Net's weights a method trains, by name."""

from diffusers import Transformer2DModel
from torch import nn

from crce.methods.attention import cross_attention_layers


def cross_attention(unet: nn.Module) -> list[str]:
    """All projections of the cross-attention: ESD-x."""
    layers = tuple(f"{name}." for name in cross_attention_layers(unet))
    return [name for name, _ in unet.named_parameters() if name.startswith(layers)]


def keys_values(unet: nn.Module) -> list[str]:
    """K and V of the cross-attention, the two projections that see the text: ESD-x strict."""
    return [name for name in cross_attention(unet) if ".to_k." in name or ".to_v." in name]


def all_but_cross_attention(unet: nn.Module) -> list[str]:
    """Every linear layer and convolution that does not see the text: ESD-u. Norms are left as they are; the embedding
    of the time and the first and last convolution are trained, as in the public diffusers script."""
    seen = set(cross_attention(unet))
    layers = tuple(f"{name}." for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return [name for name, _ in unet.named_parameters() if name.startswith(layers) and name not in seen]


def transformers(unet: nn.Module) -> list[str]:
    """Every linear layer and convolution inside a transformer."""
    inside = tuple(f"{n}." for n, m in unet.named_modules() if isinstance(m, Transformer2DModel))
    layers = [n for n, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return [f"{name}.weight" for name in layers if name.startswith(inside)]


def values(unet: nn.Module) -> list[str]:
    """V of the cross-attention: what a word brings to the picture, not where."""
    return [name for name in keys_values(unet) if ".to_v." in name]


def queries_keys(unet: nn.Module) -> list[str]:
    """Q and K of the cross-attention, of which its probabilities are made."""
    return [name for name in cross_attention(unet) if ".to_q." in name or ".to_k." in name]


def everything(unet: nn.Module) -> list[str]:
    """The whole U-Net."""
    return [name for name, _ in unet.named_parameters()]
