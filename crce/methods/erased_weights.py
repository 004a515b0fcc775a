"""What an erasure leaves behind: changed weights or adapters, to save, load, scale and apply."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crce.base_version import check_version
from crce.catalogue import WEIGHTS
from crce.errors import CrceError
from crce.files import write_atomic
from crce.methods.registry import METHODS
from crce.models.diffusion import Diffusion
from crce.models.weights import Tensors, check_fit, replace_weights


@dataclass(frozen=True)
class ErasedWeights:
    """The tensors of an erasure, and where they came from.

    tensors: changed weights of the U-Net by their diffusers names, in full (W', not W' − W), or the adapters of the
    method that info["kind"] names.
    """

    tensors: dict[str, Tensor]
    info: dict[str, str]

    @property
    def kind(self) -> str:
        return self.info.get("kind", WEIGHTS.kind)

    def check_base(self, model: Diffusion, what: str = "") -> None:
        """Raises CrceError if they were made on another version of this base. Without a digest they are taken to fit.

        what: what is said to belong to the other version; the erasure itself if not given.
        """
        if self.info.get("base") == model.base:
            named = what or f"The erasure of {self.info.get('target', '?')!r}"
            check_version(named, model.base, self.info.get("base_digest", ""), model.digest)

    @property
    def erase_from(self) -> str | None:
        """The only concept that the target was erased from; None for an erasure everywhere."""
        return json.loads(self.info.get("config", "{}")).get("erase_from")

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; stock diffusers loads changed weights: `load_state_dict(…, strict=False)`."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_atomic(Path(path), save(tensors, metadata={"format": "pt", **self.info}))

    @classmethod
    def load(cls, path: Path | str) -> "ErasedWeights":
        """Raises CrceError for a file that is missing or not in safetensors format."""
        try:
            with safe_open(path, framework="pt") as file:
                return cls({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CrceError(f"{path} holds no erased weights: {error}. Run the erasure again.") from error

    @contextmanager
    def applied(self, model: Diffusion, strength: float = 1.0) -> Iterator[Diffusion]:
        """The model with W + strength · (W' − W): at 0 exactly W, at 1 exactly W'. Restores W on leaving.

        An adapter adds strength times its output, and is removed on leaving.
        Raises CrceError if a tensor does not fit the model, or was made on another version of it.
        """
        if self.kind not in (WEIGHTS.kind, *METHODS):
            raise CrceError(f"These weights are of the unknown kind {self.kind!r}. Update CRCE Studio to use them.")
        self.check_base(model)
        apply = replace_weights if self.kind == WEIGHTS.kind else METHODS[self.kind].apply
        with apply(model, self.tensors, strength):
            yield model


def combine(erasures: list[ErasedWeights], model: Diffusion) -> ErasedWeights:
    """Several erasures as one: W + Σ (W_i' − W). Raises CrceError for adapters, and for a tensor that does not fit."""
    if len(erasures) == 1:
        return erasures[0]
    if any(erased.kind != WEIGHTS.kind for erased in erasures):
        raise CrceError("Only erasures that change weights can be combined, and one of these is an adapter.")
    parameters = dict(model.unet.named_parameters())
    total: Tensors = {}
    for erased in erasures:
        erased.check_base(model)
        check_fit(parameters, erased.tensors, model.base)
        for name, base in model.masters(erased.tensors).items():
            total[name] = total.get(name, base) + erased.tensors[name].to(base) - base
    return ErasedWeights(
        total,
        {"kind": WEIGHTS.kind, "target": ", ".join(e.info.get("target", "?") for e in erasures), "base": model.base,
         "base_digest": model.digest},
    )  # fmt: skip
