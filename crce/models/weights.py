"""The U-Net's own weights, replaced for a while."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from crce.errors import CrceError
from crce.models.diffusion import Diffusion

Tensors = dict[str, Tensor]


@contextmanager
def replace_weights(model: Diffusion, tensors: Tensors, strength: float = 1.0) -> Iterator[None]:
    """Inside, each named weight is W + strength · (W' − W): at 0 exactly W, at 1 exactly W'. Restores W on leaving.

    Raises CrceError if a tensor does not fit the model.
    """
    parameters = dict(model.unet.named_parameters())
    check_fit(parameters, tensors, model.base)
    before = {name: parameters[name].data for name in tensors}
    try:
        for name, tensor in tensors.items():
            changed = _interpolate(before[name].float(), tensor.to(model.device).float(), strength)
            parameters[name].data = changed.to(model.dtype)
        yield
    finally:
        for name, weight in before.items():
            parameters[name].data = weight


def check_fit(parameters: Mapping[str, Tensor], tensors: Tensors, base: str) -> None:
    """Raises CrceError for a tensor that the model has no weight of this name and shape for."""
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise CrceError(
                f"These weights do not fit {base!r}: they change {name} {list(tensor.shape)}. "
                "Use the base that they were made on."
            )


def _interpolate(w: Tensor, changed: Tensor, strength: float) -> Tensor:
    # lerp would round at both ends, where a person expects exactly the one model or the other.
    return {0.0: w, 1.0: changed}.get(strength, torch.lerp(w, changed, strength))
