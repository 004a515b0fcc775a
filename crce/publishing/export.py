"""The weights of a run in the forms that other programs load. Knows no torch."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crce import bases
from crce.bases import public_name
from crce.catalogue import WEIGHTS, result_of
from crce.errors import CrceError

Tensors = dict[str, np.ndarray]
BASE_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
RANK = 32


def diffusers(delta: Path, base: str) -> bytes:
    """W' by its diffusers names, as trained: `unet.load_state_dict(load_file(…), strict=False)`."""
    return _saved(*_read(Path(delta)))


def kohya(delta: Path, base: str) -> bytes:
    """W' − W by kohya's names (`lora_unet_….diff`): A1111, Forge and ComfyUI load it as a LoRA, exactly."""
    diffs, info = _differences(delta, base)
    return _saved({_kohya_name(name): diff for name, diff in diffs.items()}, info)


def lora(delta: Path, base: str, rank: int = RANK) -> bytes:
    """The nearest matrices of this rank to W' − W, for programs that know no `.diff`. The metadata says how near.

    Biases have no low rank and are left out. SPM's adapters are of rank 1 each and are exported exactly, but without
    their gate: they act on every prompt.
    """
    if _kind(delta) != WEIGHTS.kind:
        adapters, info = _read(Path(delta))
        return _saved(_side_by_side(adapters), {**info, "relative_error": "0", "gate": "left out"})
    diffs, info = _differences(delta, base)
    tensors, lost = {}, sum(float(np.square(diff).sum()) for diff in diffs.values() if diff.ndim != 2)
    for name, diff in diffs.items():
        if diff.ndim == 2:
            factors, rest = _low_rank(diff, rank)
            tensors |= {_kohya_name(name, key): factor for key, factor in factors.items()}
            lost += rest
    whole = sum(float(np.square(diff).sum()) for diff in diffs.values())
    return _saved(tensors, {**info, "relative_error": f"{(lost / whole) ** 0.5 if whole else 0:.4f}"})


FORMATS = {
    "diffusers": ("erased.safetensors", diffusers),
    "kohya": ("erased_diff.safetensors", kohya),
    "lora": ("erased_lora.safetensors", lora),
}


def weight_files(delta: Path, base: str, formats: tuple[str, ...]) -> dict[str, bytes]:
    """File name → content. Raises CrceError for a format that `check` refuses, or weights that are not there."""
    check(formats)
    if not Path(delta).is_file():
        raise CrceError(f"{delta} is not there yet. Let the erasure finish, then publish.")
    check(formats, _kind(delta))
    return {FORMATS[name][0]: FORMATS[name][1](delta, base) for name in formats}


def check(formats: Iterable[str], kind: str = WEIGHTS.kind) -> None:
    """Raises CrceError for no format, an unknown one, or one that cannot hold this kind of adapter."""
    for name in formats:
        if name not in FORMATS:
            raise CrceError(f"There is no format {name!r}. Choose among {', '.join(FORMATS)}.")
    if not formats:
        raise CrceError(f"No format is chosen. Choose among {', '.join(FORMATS)}.")
    result = result_of(kind)
    if refused := [name for name in formats if name not in result.exports]:
        raise CrceError(
            f"This erasure cannot be exported as {' or '.join(refused)}: it changes no weight. {result.why_not}"
        )


def base_weights(base: str) -> list[Path]:
    """The U-Net file of a base model, or its shards; one from the Hub is downloaded, or taken from its cache."""
    place = bases.resolve(base)
    if not Path(place).is_dir():
        return [Path(hf_hub_download(place, BASE_WEIGHTS))]
    whole = Path(place) / BASE_WEIGHTS
    shards = sorted(whole.parent.glob(f"{whole.stem}-*{whole.suffix}"))
    if not whole.exists() and not shards:
        raise CrceError(f"{whole} is missing. Save the base with safetensors to export differences.")
    return [whole] if whole.exists() else shards


def relative_error(lora_file: bytes) -> float:
    """‖what a LoRA leaves out‖ / ‖W' − W‖, from its metadata."""
    size = int.from_bytes(lora_file[:8], "little")
    return float(json.loads(lora_file[8 : 8 + size])["__metadata__"]["relative_error"])


def _differences(delta: Path, base: str) -> tuple[Tensors, dict[str, str]]:
    changed, info = _read(Path(delta))
    before = {n: t for path in base_weights(base) for n, t in _read(path, only=set(changed))[0].items()}
    if lost := changed.keys() - before.keys():
        raise CrceError(f"{base!r} has no {min(lost)}: these weights were made on another base.")
    return {n: t.astype(np.float32) - before[n].astype(np.float32) for n, t in changed.items()}, info


def _kind(delta: Path) -> str:
    return _read(Path(delta), only=set())[1].get("kind", WEIGHTS.kind)


def _side_by_side(adapters: Tensors) -> Tensors:
    """One LoRA of all concepts' adapters."""
    layers: dict[str, dict[str, list[np.ndarray]]] = {}
    for name, tensor in adapters.items():
        layer, _, part = name.rpartition("/")[2].rpartition(".")
        layers.setdefault(layer, {"down": [], "up": []})[part].append(tensor)
    made = {}
    for layer, parts in layers.items():
        down, up = np.concatenate(parts["down"]), np.concatenate(parts["up"], axis=1)
        factors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(len(down), np.float32)}
        made |= {_kohya_name(f"{layer}.weight", key): factor for key, factor in factors.items()}
    return made


def _low_rank(diff: np.ndarray, rank: int) -> tuple[Tensors, float]:
    """Up and down factors of the truncated singular value decomposition, and the squares that it drops."""
    u, s, v = np.linalg.svd(diff, full_matrices=False)
    up, down = u[:, :rank] * s[:rank], v[:rank]
    # Programs scale by alpha / rank: equal ones leave the product as it is.
    factors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.float32(len(down))}
    return {k: np.ascontiguousarray(f) for k, f in factors.items()}, float(np.square(s[rank:]).sum())


def _read(path: Path, only: set[str] | None = None) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys()) if only is None else only & set(file.keys())
            return {name: file.get_tensor(name) for name in sorted(names)}, file.metadata() or {}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CrceError(f"{path} cannot be read as safetensors ({error}).") from None


def _saved(tensors: Tensors, info: dict[str, str]) -> bytes:
    # What was recorded on this machine may name a folder of it.
    return save(tensors, metadata={**info, "base": public_name(info.get("base", ""))})


def _kohya_name(name: str, key: str = "") -> str:
    module, _, kind = name.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{key or ('diff_b' if kind == 'bias' else 'diff')}"
