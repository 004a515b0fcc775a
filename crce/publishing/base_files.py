"""The files of a base model, from its folder or the Hub's cache. Nothing is downloaded."""

from pathlib import Path

from crce import downloads, files, tensor_files
from crce.errors import CrceError


def find_base(base: str) -> Path:
    """The folder of the base. Raises CrceError if it has to be downloaded first."""
    # "fp16": of a base from the Hub, weights in any precision.
    return Path(downloads.require(base, "fp16")[0])


def pipeline_index(base: str) -> dict:
    """model_index.json without the parts that it can do without. Raises CrceError if it cannot be read."""
    index = _read(find_base(base) / "model_index.json")
    missing = dict.fromkeys(sorted(downloads.UNUSED & index.keys()), [None, None])
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
    return tensor_files.read_all(find_base(base) / "unet")
