"""Adapters: small layers beside frozen ones, hung on by forward hooks. Training and drawing go through the same ones.

A form has two tensors for each layer, `{layer}.down` and `{layer}.up`, and adds something of them to y = layer(x):
SPM's membrane up(down(x)) to linear layers and convolutions, Receler's eraser up(GELU(down(y))) to cross-attentions.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crce.errors import CrceError
from crce.models.diffusion import Diffusion

Tensors = dict[str, Tensor]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
WIDEST = 128


@dataclass(frozen=True)
class Form:
    """shapes(layer): of down and up. added(layer, x, y, down, up): of y's shape."""

    shapes: Callable[[nn.Module], Shapes]
    added: Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]


def _membrane_shapes(layer: nn.Linear | nn.Conv2d) -> Shapes:
    """Rank 1."""
    out, *into = layer.weight.shape
    return (1, *into), (out, 1, *[1] * len(into[1:]))


def _membrane(layer: nn.Linear | nn.Conv2d, x: Tensor, y: Tensor, down: Tensor, up: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation), up)
    return F.linear(F.linear(x, down), up)


def _eraser_shapes(layer: nn.Module) -> Shapes:
    """Rank 128, as on SD v1.4, where that is less than half of the channels."""
    channels = layer.to_out[0].out_features
    rank = min(WIDEST, channels // 2)
    return (rank, channels), (channels, rank)


def _eraser(layer: nn.Module, x: Tensor, y: Tensor, down: Tensor, up: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(y, down)), up)


MEMBRANE = Form(_membrane_shapes, _membrane)
ERASER = Form(_eraser_shapes, _eraser)


def fresh(unet: nn.Module, layers: list[str], form: Form, rng: torch.Generator) -> Tensors:
    """For each layer a `down` as torch starts a linear layer, and an `up` of zeros: at first nothing is added."""
    tensors = {}
    for name in layers:
        down, up = form.shapes(unet.get_submodule(name))
        bound = torch.Size(down[1:]).numel() ** -0.5
        tensors[f"{name}.down"] = torch.empty(down).uniform_(-bound, bound, generator=rng)
        tensors[f"{name}.up"] = torch.zeros(up)
    return tensors


@contextmanager
def erasers(model: Diffusion, tensors: Tensors, strength: float = 1.0) -> Iterator[Tensors]:
    """Receler's, on every prompt alike. Yields what the last prediction added, by layer.

    Raises CrceError if a tensor does not fit the model.
    """
    kept: Tensors = {}
    with _attached(model, tensors, ERASER, lambda y: strength, kept.__setitem__):
        yield kept


@contextmanager
def membranes(model: Diffusion, tensors: Tensors, strength: float = 1.0) -> Iterator[None]:
    """SPM's, each with its gate γ: tensors by `{target}/{layer}.down`, so that several concepts add up.

    Raises CrceError if a tensor does not fit the model.
    """
    with ExitStack() as stack:
        for target, own in by_target(tensors).items():
            scale = _gated(model, target, strength)
            stack.enter_context(_attached(model, own, MEMBRANE, scale))
        yield


def by_target(tensors: Tensors) -> dict[str, Tensors]:
    found: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in tensors.items():
        target, _, rest = name.rpartition("/")
        found[target][rest] = tensor
    return dict(found)


def gate(model: Diffusion, prompt: str, target: str) -> float:
    """γ in 0 … 1, SPM's facilitated transport: the cosine between all text states of both, or the share of the
    target's tokens that stand in the prompt, whichever is more.
    """
    a, b = model.embed([prompt, target]).flatten(1)
    erased, there = (set(model.tokenizer(text).input_ids[1:-1]) for text in (target, prompt))
    return max(F.cosine_similarity(a, b, dim=0).item(), len(erased & there) / len(erased))


def _gated(model: Diffusion, target: str, strength: float) -> Callable[[Tensor], Tensor | float]:
    """strength · γ for each row of a batch. Both halves of classifier-free guidance have their prompt's, and where
    nothing is being drawn, as in training, the gate is open.
    """

    @cache
    def rows(prompts: tuple[str, ...]) -> Tensor:
        return strength * torch.tensor([gate(model, p, target) for p in prompts], device=model.device)

    def scale(y: Tensor) -> Tensor | float:
        if not model.drawing:
            return strength
        halves = len(y) // len(model.drawing)
        return rows(model.drawing).to(y.dtype).repeat(halves).view(-1, *[1] * (y.ndim - 1))

    return scale


@contextmanager
def _attached(
    model: Diffusion,
    tensors: Tensors,
    form: Form,
    scale: Callable[[Tensor], Tensor | float],
    keep: Callable[[str, Tensor], None] = lambda name, added: None,
) -> Iterator[None]:
    """Inside, each layer that the tensors name gives y + scale(y) · added."""

    def hook(name: str):
        down, up = (tensors[f"{name}.{part}"].to(model.device, model.dtype) for part in ("down", "up"))

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
            added = form.added(layer, inputs[0], y, down, up)
            keep(name, added)
            return y + scale(y) * added

        return add

    with ExitStack() as hooks:
        for name, layer in _layers(model, tensors, form).items():
            hooks.callback(layer.register_forward_hook(hook(name)).remove)
        yield


def _layers(model: Diffusion, tensors: Tensors, form: Form) -> dict[str, nn.Module]:
    modules, found = dict(model.unet.named_modules()), {}
    for name in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
        own = tuple(tuple(tensors[f"{name}.{part}"].shape) for part in ("down", "up"))
        if name not in modules or form.shapes(modules[name]) != own:
            raise CrceError(
                f"This delta does not fit {model.base!r}: it hangs {own[0]} and {own[1]} on {name}. "
                "Use the base that it was made on."
            )
        found[name] = modules[name]
    return found


# How a delta of this kind is applied (see `ErasedWeights.applied`).
KINDS = {"spm": membranes, "receler": erasers}
