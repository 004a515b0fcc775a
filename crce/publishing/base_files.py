"""The files of a base model, from its folder or the Hub's cache; what is missing there is downloaded."""

from pathlib import Path

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from crce import bases, files, tensor_files
from crce.errors import CrceError

# What a pipeline can do without: it draws as our own does, and the checker alone is larger than the U-Net in fp16.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
_NOT_NEEDED = ["*.fp16.safetensors", "*non_ema*", *(f"{part}/*" for part in LEFT_OUT)]


def find_base(base: str, parts: tuple[str, ...]) -> Path:
    """The folder with these parts of the base ("unet", "vae", …) and their settings.

    Raises CrceError for a base without safetensors, and if the Hub is needed and cannot be reached.
    """
    place = bases.resolve(base)
    if Path(place).is_dir():
        return Path(place)
    try:
        cached = Path(snapshot_download(place, local_files_only=True))
        if (cached / "model_index.json").exists() and all(_is_whole(cached / part) for part in parts):
            return cached
    except LocalEntryNotFoundError:
        pass
    wanted = ["model_index.json", *(f"{part}/*.{end}" for part in parts for end in ("json", "txt", "safetensors"))]
    try:
        return Path(snapshot_download(place, allow_patterns=wanted, ignore_patterns=_NOT_NEEDED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError) as error:
        raise CrceError(
            f"The files of {base!r} are not on this machine and cannot be downloaded ({error}). Check the network."
        ) from None


def _is_whole(part: Path) -> bool:
    """Whether a part was downloaded; those of settings alone have no weights."""
    return any(part.glob("*.safetensors" if part.name in ("unet", "vae", "text_encoder") else "*.json"))


def pipeline_index(base: str) -> dict:
    """model_index.json without the parts that are left out. Raises CrceError if it cannot be read."""
    index = _read(find_base(base, ()) / "model_index.json")
    missing = dict.fromkeys((part for part in LEFT_OUT if part in index), [None, None])
    return {**index, **missing, "requires_safety_checker": False}


def read_settings(part: Path) -> dict:
    """The config.json of a part. Raises CrceError if it cannot be read."""
    return _read(part / "config.json")


def _read(path: Path) -> dict:
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise CrceError(f"{path} cannot be read ({error}). Save the base model again.") from None


def parts_of(index: dict) -> tuple[str, ...]:
    """The folders of a pipeline: text encoder, tokenizer, U-Net, …"""
    return tuple(name for name, value in index.items() if isinstance(value, list) and value[0])


def unet(base: str) -> tensor_files.LazyTensors:
    """The U-Net's weights by their diffusers names."""
    return tensor_files.read_all(find_base(base, ("unet",)) / "unet")
