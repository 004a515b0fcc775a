"""Which version of a base model: a digest of its weights and settings, so that what was made on one is not taken for
what was made on another. Knows no torch."""

import hashlib
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from crce import bases, files
from crce.errors import CrceError

# What a picture depends on. The judge, what is covered and the presets may change without another model.
_PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_NETWORKS = ("text_encoder", "unet", "vae")
# No variants ("model.fp16.safetensors") and no index, which a download may have beside the weights or not.
_FILE = re.compile(r"[^.]+\.(json|txt|safetensors)")
_BLOCK = 1 << 22


def find_digest(base: str) -> str:
    """SHA-256 of the base's weights and settings, in hex; empty for one whose files are not on this machine.

    It is cheap: the digest of each file is remembered until the file changes. Raises CrceError for an unknown base.
    """
    folder = _find_folder(base)
    if folder is None:
        return ""
    found = {part: sorted(p for p in (folder / part).glob("*") if _FILE.fullmatch(p.name)) for part in _PARTS}
    if not all(any(p.suffix == ".safetensors" for p in found[part]) for part in _NETWORKS):
        return ""
    facts = "".join(f"{part}/{path.name} {_digest(path)}\n" for part, paths in found.items() for path in paths)
    return hashlib.sha256(facts.encode()).hexdigest()


def fits(recorded: str, present: str) -> bool:
    """Whether two digests may be of one version; an empty one says nothing, and is taken to fit."""
    return not recorded or not present or recorded == present


def check_version(what: str, base: str, recorded: str, present: str) -> None:
    """Raises CrceError if `what`, such as "The run 'dog'", belongs to another version of the base than is present."""
    if not fits(recorded, present):
        raise CrceError(
            f"{what} belongs to another version of {bases.public_name(base)} ({recorded[:8]}) than the one here "
            f"({present[:8]}). Erase again with this version, or put that one's files back."
        )


def describe(recorded: str) -> str:
    """The version for people."""
    return recorded[:8] if recorded else "not recorded, taken to be the present one"


def _find_folder(base: str) -> Path | None:
    place = Path(bases.resolve(base))
    if place.is_dir():
        return place
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(base, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None


def _digest(path: Path) -> str:
    """Of the file's content. Files that came from the Hub are links to a file named by the digest of its content."""
    real = path.resolve()
    if real.parent.name == "blobs":
        return real.name
    found = real.stat()
    return _read_digest(real, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read_digest(path: Path, size: int, changed: int) -> str:
    # Without a home to keep it in, on a machine that only trains, it is computed again.
    with suppress(OSError, ImportError):
        return _cache_file(path, size, changed).read_text(encoding="utf-8")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    with suppress(OSError, ImportError):
        # A small file is read faster than looked up.
        if size > _BLOCK:
            files.write_atomic(_cache_file(path, size, changed), digest.hexdigest())
    return digest.hexdigest()


def _cache_file(path: Path, size: int, changed: int) -> Path:
    return files.cache_file("digests", [str(path), size, changed], ".txt")
