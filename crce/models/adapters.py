"""Adapters: small layers beside frozen ones, attached by forward hooks, in training and in drawing alike.

A form has two tensors per layer, `{layer}.down` and `{layer}.up`, and adds something made of them to y = layer(x).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crce.errors import CrceError
from crce.models.diffusion import Diffusion
from crce.models.weights import Tensors

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Form:
    """shapes(layer): of down and up. added(layer, x, y, down, up): what is added to y, in y's shape."""

    shapes: Callable[[nn.Module], Shapes]
    added: Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]


def init_adapters(unet: nn.Module, layers: list[str], form: Form, rng: torch.Generator) -> Tensors:
    """For each layer a `down` as torch initialises a linear layer, and an `up` of zeros: at first nothing is added."""
    tensors = {}
    for name in layers:
        down, up = form.shapes(unet.get_submodule(name))
        bound = torch.Size(down[1:]).numel() ** -0.5
        tensors[f"{name}.down"] = torch.empty(down).uniform_(-bound, bound, generator=rng)
        tensors[f"{name}.up"] = torch.zeros(up)
    return tensors


@contextmanager
def attach(
    model: Diffusion,
    tensors: Tensors,
    form: Form,
    scale: Callable[[Tensor], Tensor | float],
    keep: Callable[[str, Tensor], None] = lambda name, added: None,
) -> Iterator[None]:
    """Inside, each layer that the tensors name gives y + scale(y) · added; `keep` gets every addition.

    Raises CrceError if a tensor does not fit the model.
    """

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        down, up = (tensors[f"{name}.{part}"].to(model.device, model.dtype) for part in ("down", "up"))

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
            added = form.added(layer, inputs[0], y, down, up)
            # Not when a block is computed again for its backward pass, which would have to keep all that led to it.
            if inside:
                keep(name, added)
            return y + scale(y) * added

        return add

    inside = True
    with ExitStack() as hooks:
        for name, layer in _layers(model, tensors, form).items():
            hooks.callback(layer.register_forward_hook(hook(name)).remove)
        yield
    inside = False


def _layers(model: Diffusion, tensors: Tensors, form: Form) -> dict[str, nn.Module]:
    """The layers that the tensors name, by name."""
    modules, found = dict(model.unet.named_modules()), {}
    for name in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
        shapes = tuple(tuple(tensors[f"{name}.{part}"].shape) for part in ("down", "up"))
        if name not in modules or form.shapes(modules[name]) != shapes:
            raise CrceError(
                f"These weights do not fit {model.base!r}: they attach {shapes[0]} and {shapes[1]} to {name}. "
                "Use the base that they were made on."
            )
        found[name] = modules[name]
    return found
