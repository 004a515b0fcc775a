"""Base models and judges from the Hugging Face Hub: what is here, what would have to be downloaded, and the download.

Nothing here downloads weights but `fetch`. What is here is used without the network. No torch.
"""

import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from shutil import disk_usage
from typing import Any

from crce import bases
from crce.cost import format_size
from crce.errors import CrceError
from crce.files import read_json

# Parts of a pipeline that an erasure has no use for.
UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}  # by their names in safetensors files
_INDEX, _CONFIG = "model_index.json", "config.json"  # of a pipeline; of a model alone, as judges are
_WEIGHTS, _VARIANT = "*.safetensors", "*.fp16*.safetensors"
_POLL = 0.3  # seconds between two looks at a download


@dataclass(frozen=True)
class Download:
    """What a base or a judge needs from the Hub. files: name and bytes, the index first; commit: of the repository.

    memory: bytes of the weights in `dtype`. cached: bytes of the files that are here already.
    """

    base: str
    commit: str
    files: tuple[tuple[str, int], ...]
    memory: int
    dtype: str
    cached: int = 0

    @property
    def size(self) -> int:
        """Bytes still to download."""
        return sum(size for _, size in self.files) - self.cached

    def describe(self) -> str:
        """ "SD is not on this machine: 4.3 GB to download, about 2.1 GB of memory in bf16." """
        return (
            f"{self.base} is not on this machine: {format_size(self.size)} to download, "
            f"about {format_size(self.memory)} of memory in {self.dtype}."
        )


def is_here(base: str, dtype: str = "fp32") -> bool:
    """Whether a base can be loaded without the network. Raises CrceError for a base that cannot be one."""
    return not is_on_hub(base) or local_folder(base, dtype) is not None


def is_on_hub(base: str) -> bool:
    """Whether a base is named by its Hub id, and so may have to be downloaded. Raises CrceError as `resolve` does."""
    bases.resolve(base)
    return base != bases.EMOJI_SD and not Path(base).is_dir()


def local_folder(base: str, dtype: str) -> tuple[Path, str | None] | None:
    """The folder in which a Hub base lies with everything that loading it needs, and the variant of its weights ("fp16"
    or None); None if something is missing."""
    folder = bases.hub_folder(base)
    if folder is None:
        return None
    variants = ("fp16", None) if dtype == "fp16" else (None,)
    found = next((v for v in variants if _is_complete(folder, v)), "missing")
    return None if found == "missing" else (folder, found)


def require(base: str, dtype: str) -> tuple[str, str | None]:
    """The folder and the variant to load a base from. Raises CrceError if it has to be downloaded first."""
    if not is_on_hub(base):
        return bases.resolve(base), None
    if found := local_folder(base, dtype):
        return str(found[0]), found[1]
    raise CrceError(
        f"The base model {base!r} is not on this machine, and nothing downloads it unasked. Download it in the Erase "
        f"tab, or with `python -m crce download {base}`."
    )


def has_judge(model: str) -> bool:
    """Whether a judge's model from the Hub is on this machine with all its weights."""
    folder = bases.hub_folder(model, _CONFIG)
    names = [path.name for path in folder.iterdir()] if folder else []
    return bool(_choose_weights(names, None)) or "pytorch_model.bin" in names


def _is_complete(folder: Path, variant: str | None) -> bool:
    return all(_has_part(folder / part, variant) for part in _parts(read_json(folder / _INDEX)))


def _has_part(part: Path, variant: str | None) -> bool:
    if not any(part.glob("*.json")):
        return False
    return not (part / "config.json").exists() or bool(_choose_weights([f.name for f in part.iterdir()], variant))


def _parts(index: dict[str, Any]) -> list[str]:
    """The folders of a pipeline that are loaded."""
    named = {name: value for name, value in index.items() if isinstance(value, list) and value[0]}
    return [name for name in named if name not in UNUSED]


def _choose_weights(names: list[str], variant: str | None) -> list[str]:
    """Of a part's files its weights in this variant; all shards or none."""
    files = [name for name in names if fnmatch(name, _WEIGHTS)]
    if variant:
        chosen = [name for name in files if fnmatch(name, _VARIANT)]
    else:
        # diffusion_pytorch_model.safetensors or …-00001-of-00002.safetensors, not .fp16. or .non_ema.
        chosen = [name for name in files if name.count(".") == 1]
    shards = {name.rpartition("-of-")[2].split(".")[0] for name in chosen if "-of-" in name}
    whole = [name for name in chosen if "-of-" not in name]
    return whole or (chosen if shards and len(chosen) == int(min(shards)) else [])


# What the Hub says


def plan(base: str, dtype: str = "fp32") -> Download:
    """What has to be downloaded for a base in this dtype, from the Hub's list of its files.

    fp16 takes the variant of the weights in fp16 where there is one: half of the bytes. Raises CrceError if the Hub
    cannot be reached, does not know the base or does not let us have it, and for a base that cannot be used.
    """
    from huggingface_hub import HfApi

    with _explaining(base):
        api = HfApi()
        info = api.model_info(base, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        if _INDEX not in sizes:
            raise CrceError(f"{base!r} on the Hub is no diffusers model: it has no {_INDEX}. Choose another base.")
        # The first file that a gated base refuses, and small.
        index = read_json(Path(api.hf_hub_download(base, _INDEX, revision=info.sha)))
        bases.check_class(index.get("_class_name", ""), base)
        wanted, weights = _choose_files(base, index, sizes, dtype)
        values = _count_values(api, base, weights, info.sha).total()
    return _make_plan(base, info.sha, {name: sizes[name] for name in wanted}, values, dtype)


def plan_judge(model: str) -> Download:
    """What has to be downloaded for a judge's model, in the precision of its files. Raises CrceError as `plan` does."""
    from huggingface_hub import HfApi

    with _explaining(model):
        api = HfApi()
        info = api.model_info(model, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}
        weights = _choose_weights([*sizes], None)
        if _CONFIG not in sizes or not weights:
            raise CrceError(f"{model!r} on the Hub has no {_CONFIG} with safetensors. Choose another judge.")
        counts = _count_values(api, model, weights, info.sha)
    texts = [name for name in sizes if name != _CONFIG and (_is_text(name, None) or name.endswith(".jinja"))]
    values, dtype = counts.total(), _PRECISIONS.get(counts.most_common(1)[0][0], "fp32")
    return _make_plan(model, info.sha, {name: sizes[name] for name in (_CONFIG, *texts, *weights)}, values, dtype)


def _make_plan(base: str, commit: str | None, files: dict[str, int], values: int, dtype: str) -> Download:
    cached = sum(size for name, size in files.items() if _is_cached(base, name, commit))
    return Download(base, commit or "", tuple(files.items()), values * BYTES[dtype], dtype, cached)


def _choose_files(base: str, index: dict[str, Any], sizes: dict[str, int], dtype: str) -> tuple[list[str], list[str]]:
    """The files to download, and which of them are weights."""
    texts, weights = [_INDEX], []
    inside = {part: [n.split("/", 1)[1] for n in sizes if n.startswith(f"{part}/")] for part in _parts(index)}
    heavy = {part: names for part, names in inside.items() if "config.json" in names}
    variants = ["fp16"] if dtype == "fp16" and all(_choose_weights(names, "fp16") for names in heavy.values()) else []
    variant = variants[0] if variants else None
    for part, names in inside.items():
        texts += [f"{part}/{name}" for name in names if _is_text(name, variant)]
    for part, names in heavy.items():
        chosen = _choose_weights(names, variant)
        if not chosen:
            raise CrceError(f"{base!r} has no safetensors for its {part}. Choose a base that has them.")
        weights += [f"{part}/{name}" for name in chosen]
    return [*texts, *weights], weights


def _is_text(name: str, variant: str | None) -> bool:
    """Configuration and vocabulary; an index of shards only of the weights that are chosen."""
    if name.endswith(".index.json"):
        return name.endswith(".safetensors.index.json") and ("fp16" in name) == bool(variant)
    return name.endswith((".json", ".txt", ".model")) and "/" not in name


def _count_values(api: Any, base: str, names: list[str], commit: str | None) -> Counter[str]:
    """The values in files of weights, by their headers: how many of each precision."""
    found: Counter[str] = Counter()
    for name in names:
        found.update(api.parse_safetensors_file_metadata(base, name, revision=commit).parameter_count)
    return found


def _is_cached(base: str, name: str, commit: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(base, name, revision=commit), str)


# The download


def fetch(download: Download) -> Generator[tuple[int, int], None, Path]:
    """Downloads; yields the bytes that are here and wanted, and returns the folder. What is done is kept: a download
    that was broken off continues with the file that it was at. Raises CrceError as `plan` does."""
    _check_room(download)
    done, errors, index = threading.Event(), [], download.files[0][0]

    def work() -> None:
        try:
            with _explaining(download.base):
                for name, _ in download.files:
                    _fetch_file(download.base, name, download.commit)
                # By the branch and last: the cache remembers the commit as the newest once all of it is here.
                _fetch_file(download.base, index)
        except Exception as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, daemon=True).start()
    total = sum(size for _, size in download.files)
    while not done.wait(_POLL):
        yield measure(download), total
    if errors:
        raise errors[0]
    yield total, total
    folder = bases.hub_folder(download.base, index)
    assert folder is not None
    return folder


def _fetch_file(base: str, name: str, commit: str | None = None) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    hf_hub_download(base, name, revision=commit)


def _check_room(download: Download) -> None:
    """Raises CrceError if the disk of the cache is too small."""
    place = _blobs(download.base)
    free = disk_usage(next(folder for folder in place.parents if folder.exists())).free
    if free < download.size:
        raise CrceError(
            f"The disk of {place.parents[1]} has {format_size(free)} free, and {download.base} needs "
            f"{format_size(download.size)}. Free some space, or choose another place with HF_HOME."
        )


def measure(download: Download) -> int:
    """Bytes of a download that are on the disk; of a file that is being written, what is written."""
    here = sum(size for name, size in download.files if _is_cached(download.base, name, download.commit))
    parts = _blobs(download.base).glob("*.incomplete")
    recent = [stat.st_blocks * 512 for part in parts if (stat := _stat(part)) and time.time() - stat.st_mtime < 60]
    return min(here + sum(recent), sum(size for _, size in download.files))


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


def _blobs(base: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{base.replace('/', '--')}" / "blobs"


@contextmanager
def _explaining(base: str) -> Iterator[None]:
    """The Hub's errors in its own words, with what to do."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        raise CrceError(_advise(base, error)) from error
    except HFValidationError as error:
        raise CrceError(f"{base!r} is no Hub id: {error}") from error
    except OfflineModeIsEnabled:
        raise CrceError(f"{base} is not on this machine, and HF_HUB_OFFLINE is set. Unset it to download.") from None
    except httpx2.HTTPError as error:
        raise CrceError(_unreachable(base)) from error
    except OSError as error:
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise CrceError(_advise(base, cause)) from error
        if isinstance(cause, httpx2.HTTPError | OfflineModeIsEnabled):
            raise CrceError(_unreachable(base)) from error
        raise CrceError(f"{base} could not be downloaded: {error}") from error


def _unreachable(base: str) -> str:
    from huggingface_hub.constants import ENDPOINT

    return (
        f"{base} is not on this machine, and {ENDPOINT} cannot be reached. Check the network, or give the folder of a "
        f"model that is here. {bases.EMOJI_SD!r} needs no network."
    )


def _advise(base: str, error: Any) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = error.response.status_code
    said = f" It says: {error.server_message[:300]}" if error.server_message else ""
    if isinstance(error, GatedRepoError):
        return (
            f"The Hub lets only those have {base} who have accepted its conditions. Accept them on its page, then log "
            f"in with `hf auth login` or set HF_TOKEN.{said}"
        )
    # The Hub says 401 of an unknown model, too, to those who are not logged in.
    if status == 404 or isinstance(error, RepositoryNotFoundError):
        return f"The Hub has no model {base!r} that this account can see ({status}). Check the name.{said}"
    if status in (401, 403):
        return f"The Hub does not let this account have {base} ({status}). Log in with `hf auth login`.{said}"
    return f"The Hub refuses {base} ({status}). Try again later.{said}"
