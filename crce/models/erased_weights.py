"""What an erasure leaves behind: changed weights or adapters, to save, load, scale and apply."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crce.errors import CrceError
from crce.files import write_atomic
from crce.models import adapters
from crce.models.diffusion import Diffusion


@dataclass(frozen=True)
class ErasedWeights:
    """Where it came from, and its tensors: changed weights of the U-Net by their diffusers names, in full (W', not
    W' − W), or, where info["kind"] says so, adapters (see `adapters`).
    """

    tensors: dict[str, Tensor]
    info: dict[str, str]

    def save(self, path: Path) -> None:
        """One safetensors file; changed weights are loaded by stock diffusers, `load_state_dict(…, strict=False)`."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_atomic(path, save(tensors, metadata={"format": "pt", **self.info}))

    @classmethod
    def load(cls, path: Path) -> "ErasedWeights":
        """Raises CrceError for a file that is not there or no safetensors."""
        try:
            with safe_open(path, framework="pt") as file:
                return cls({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CrceError(f"{path} holds no delta: {error}. Run the erasure again.") from error

    @contextmanager
    def applied(self, model: Diffusion, strength: float = 1.0) -> Iterator[Diffusion]:
        """The model with W + strength · (W' − W): 0 is W exactly, 1 is W'. Restores W on leaving.

        An adapter adds strength times what it gives, on the prompts that it is for, and is taken off again.
        Raises CrceError if a tensor does not fit the model.
        """
        kind = _KINDS[self.info.get("kind", "weights")]
        with kind(model, self.tensors, strength):
            yield model


def combine(deltas: list[ErasedWeights], model: Diffusion) -> ErasedWeights:
    """Several erasures as one: W + Σ (W_i' − W). Raises CrceError for adapters, and for a tensor that does not fit."""
    if len(deltas) == 1:
        return deltas[0]
    if any(delta.info.get("kind", "weights") != "weights" for delta in deltas):
        raise CrceError("Only erasures that change weights can be combined, and one of these is an adapter.")
    parameters = dict(model.unet.named_parameters())
    total: dict[str, Tensor] = {}
    for delta in deltas:
        _check(parameters, delta.tensors, model.base)
        for name, tensor in delta.tensors.items():
            base = parameters[name].detach().float()
            total[name] = total.get(name, base) + tensor.to(base) - base
    return ErasedWeights(total, {"kind": "weights", "target": ", ".join(d.info.get("target", "?") for d in deltas)})


@contextmanager
def _replaced(model: Diffusion, tensors: dict[str, Tensor], strength: float) -> Iterator[None]:
    parameters = dict(model.unet.named_parameters())
    _check(parameters, tensors, model.base)
    before = {name: parameters[name].data for name in tensors}
    try:
        for name, tensor in tensors.items():
            changed = _between(before[name].float(), tensor.to(model.device).float(), strength)
            parameters[name].data = changed.to(model.dtype)
        yield
    finally:
        for name, tensor in before.items():
            parameters[name].data = tensor


def _check(parameters: dict[str, Tensor], tensors: dict[str, Tensor], base: str) -> None:
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise CrceError(
                f"This delta does not fit {base!r}: it changes {name} {list(tensor.shape)}. "
                "Use the base that it was made on."
            )


def _between(w: Tensor, changed: Tensor, strength: float) -> Tensor:
    # lerp would round at both ends, where a person expects exactly the one model or the other.
    return {0.0: w, 1.0: changed}.get(strength, torch.lerp(w, changed, strength))


_KINDS = {"weights": _replaced, **adapters.KINDS}
