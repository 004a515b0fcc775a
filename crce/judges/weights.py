"""What judges with weights of their own share: where they run, and what they were loaded from."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from crce.bases import public_name
from crce.errors import CrceError
from crce.models.diffusion import pick_device
from crce.models.memory import free_memory, is_out_of_memory

TAIL = 1 << 20  # bytes at the end of a weights file that stand for all of it
T = TypeVar("T")
R = TypeVar("R")


def load_weights(automatic: Any, place: str, device: str) -> Any:
    """A model of transformers from a folder or the Hub's cache, on the CPU: in bf16 for a GPU, else as its files are.

    automatic: an Auto class. Raises CrceError if it cannot be loaded.
    """
    dtype = torch.bfloat16 if torch.device(pick_device(device)).type == "cuda" else "auto"
    options = {"dtype": dtype, "local_files_only": True}
    return load(place, lambda: automatic.from_pretrained(place, **options).eval().requires_grad_(False))


def load(place: str, loading: Callable[[], R]) -> R:
    """Raises CrceError for whatever goes wrong."""
    try:
        return loading()
    except CrceError:
        raise
    except Exception as error:  # a folder or a Hub can be wrong in more ways than transformers names
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CrceError(
            f"The judge {place!r} could not be loaded: {line} Check the name, the network and, for gated models, "
            "`hf auth login`."
        ) from error


def version_of(place: str, config: transformers.PretrainedConfig) -> str:
    """Name and commit of a model of the Hub; for a folder, a hash of its settings and the end of each weights file."""
    if commit := getattr(config, "_commit_hash", None):
        return f"{place}@{commit[:12]}"
    digest = hashlib.sha256()
    for path in sorted([*Path(place).glob("config.json"), *Path(place).glob("*.safetensors")]):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            digest.update(file.read())
    return f"{public_name(place)}@{digest.hexdigest()[:12]}"


def in_batches(function: Callable[[Sequence[T]], list[R]], items: Sequence[T], size: int) -> list[R]:
    """The results of `function` for parts of at most `size` items; smaller parts where memory runs out."""
    results: list[R] = []
    while len(results) < len(items):
        part = items[len(results) : len(results) + size]
        try:
            results += function(part)
        except (RuntimeError, MemoryError) as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            size = len(part) // 2
            free_memory()
    return results
