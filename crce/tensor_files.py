"""Safetensors files read and written tensor by tensor, so that a model of any size fits. No torch.

numpy has no bf16, which many bases are saved in; a bf16 number is the upper half of an fp32 one.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from crce.errors import CrceError
from crce.files import write_atomic

Info = dict[str, str]
DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.uint16}
FP16_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of this shape, in fp32; it is read or computed when it is asked for."""

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]

    @classmethod
    def of(cls, values: np.ndarray) -> "LazyTensor":
        return cls(values.shape, lambda: values)

    def reshaped(self, *shape: int) -> "LazyTensor":
        return LazyTensor(shape, lambda: self.load().reshape(shape))


LazyTensors = dict[str, LazyTensor]


def read(path: Path) -> tuple[LazyTensors, Info]:
    """The floating-point tensors of a file by name, exact in fp32 (F64 is rounded), and its metadata.

    Raises CrceError for a file that is missing or broken.
    """
    try:
        with safe_open(path, framework="numpy") as file:  # it checks sizes and offsets
            info = file.metadata() or {}
        with open(path, "rb") as plain:
            size = int.from_bytes(plain.read(8), "little")
            header = json.loads(plain.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise CrceError(f"{path} cannot be read as safetensors ({error}).") from None
    header.pop("__metadata__", None)
    entries = {name: entry for name, entry in sorted(header.items()) if entry["dtype"] in DTYPES}
    return {name: _stored(path, 8 + size, entry) for name, entry in entries.items()}, info


def _stored(path: Path, start: int, entry: dict) -> LazyTensor:
    shape, (first, _) = tuple(entry["shape"]), entry["data_offsets"]

    def load() -> np.ndarray:
        values = np.fromfile(path, DTYPES[entry["dtype"]], prod(shape), offset=start + first)
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(shape)

    return LazyTensor(shape, load)


def find_weights(folder: Path) -> list[Path]:
    """The safetensors file of a model's folder, or its shards; a variant, such as fp16, only if there is nothing else.

    Raises CrceError if there is none.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if "non_ema" not in path.name)
    plain = [path for path in files if "." not in path.stem]
    whole = [path for path in plain or files if "-of-" not in path.stem]
    if not files:
        raise CrceError(f"{folder} has no weights as safetensors. Save the base model as safetensors.")
    return whole[:1] or plain or files


def read_all(folder: Path) -> LazyTensors:
    """The tensors of a model's folder, of all shards."""
    return {name: tensor for path in find_weights(folder) for name, tensor in read(path)[0].items()}


def write(path: Path, tensors: Mapping[str, LazyTensor], info: Info, fp16: bool = False) -> None:
    """Writes one file in fp32 or fp16, in order, and renames it when it is whole.

    Raises CrceError for a value that fp16 cannot hold, and if the disk has no room or cannot be written.
    """
    header = _header(tensors, info, fp16)
    _check_room(path, measure(tensors, info, fp16))
    unfinished = path.with_name(f".{path.name}.part")
    with _told(path):
        try:
            with open(unfinished, "wb") as file:
                file.write(header)
                for name, tensor in tensors.items():
                    file.write(_convert(name, tensor, fp16).tobytes())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def measure(tensors: Mapping[str, LazyTensor], info: Info, fp16: bool = False) -> int:
    """Bytes of the file that `write` makes of these."""
    values = sum(prod(tensor.shape) for tensor in tensors.values())
    return len(_header(tensors, info, fp16)) + _width(fp16) * values


def write_bytes(path: Path, content: bytes) -> None:
    """Raises CrceError if the file cannot be written."""
    with _told(path):
        write_atomic(path, content)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CrceError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from None


def _width(fp16: bool) -> int:
    return 2 if fp16 else 4


def _header(tensors: Mapping[str, LazyTensor], info: Info, fp16: bool) -> bytes:
    # Metadata is read in no fixed order.
    entries: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **info}.items()))}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _width(fp16) * prod(tensor.shape)
        entries[name] = {"dtype": "F16" if fp16 else "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _convert(name: str, tensor: LazyTensor, fp16: bool) -> np.ndarray:
    values = np.ascontiguousarray(tensor.load(), np.float32)
    if not fp16:
        return values
    if values.size and np.abs(values).max() > FP16_LIMIT:
        raise CrceError(f"{name} has values above {FP16_LIMIT:.0f}, which fp16 cannot hold. Export it without fp16.")
    return values.astype(np.float16)


def _check_room(path: Path, needed: int) -> None:
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise CrceError(f"{path.name} needs {needed >> 20} MB and the disk of {path.parent} has {free >> 20} MB free.")
