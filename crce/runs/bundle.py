"""A run as one zip file to pass on: concepts and settings, result, report, pictures, and the versions it was made with.

An archive may come from anyone. Each entry must be one that `pack` writes, of a size that it can have, and every file
is read and checked before the run appears; an archive with anything else in it is refused as a whole.
"""

import json
import math
import platform
import re
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

from crce import __version__, bases, files, tensor_files
from crce.base_version import find_digest, fits
from crce.catalogue import METHOD_FACTS
from crce.concepts.library import parse_spec
from crce.concepts.spec import spec_to_dict
from crce.config import ResolvedConfig, config_from_dict
from crce.errors import CrceError
from crce.evaluation.agreement import PersonVerdict
from crce.evaluation.report import Report, read_report, report_to_dict
from crce.records import parse
from crce.redact import redact
from crce.runs.events import (
    CheckpointEvent,
    CostEvent,
    DoneEvent,
    EstimateEvent,
    EvaluatedEvent,
    Event,
    NoteEvent,
    NotJudgedEvent,
    PreviewEvent,
    StepEvent,
    from_line,
    to_line,
)
from crce.runs.run import Run, all_runs, new_id, store
from crce.text import has_controls

FORMAT = 1
FACTS, JOB, WEIGHTS, REPORT, PERSON, EVENTS = (
    "bundle.json", "job.json", "delta.safetensors", "report.json", "person.json", "events.jsonl"
)  # fmt: skip
REQUIRED = (FACTS, JOB, WEIGHTS)
TEXTS = (FACTS, JOB, REPORT, PERSON, EVENTS)
PICTURE = re.compile(r"images/(eval/)?[A-Za-z0-9_-]{1,80}\.png")
MOST_FILES = 20_000
MOST_TEXT, MOST_PICTURE, MOST_WEIGHTS = 32 << 20, 16 << 20, 16 << 30  # bytes of one file
MOST_SIDE = 4096  # pixels
MOST_RATIO, SMALL = 200, 1 << 20  # a longer text than SMALL bytes is not packed to less than 1/MOST_RATIO
# Nothing of the machine, and no start: a run that was started and not ended would be continued.
_TOLD = (StepEvent, CheckpointEvent, PreviewEvent, EstimateEvent, CostEvent, EvaluatedEvent, NotJudgedEvent, NoteEvent)
_PACKAGES = ("torch", "diffusers", "transformers")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_BLOCK = 1 << 20
# What reading a torn or forged archive raises.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError)


@dataclass(frozen=True)
class BundleFacts:
    """bundle.json. format: of the bundle. versions: of the programs that were there when it was packed."""

    format: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Imported:
    """A run that came from a bundle. versions: see `BundleFacts`. warning: what does not fit here, if anything."""

    run: Run
    versions: dict[str, str]
    warning: str = ""


# Out


def pack(run: Run, path: Path) -> Path:
    """Writes the bundle of a run with a result. Raises CrceError without one, and if `path` cannot be written."""
    if not run.erased:
        raise CrceError(f"{run.title!r} has no result yet. Let the erasure finish first.")
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            _write(run, temporary)
    except OSError as error:
        raise CrceError(f"{path} cannot be written: {error.strerror}. Choose another place.") from None
    return path


def _write(run: Run, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in _list_texts(run).items():
            archive.writestr(name, redact(text), zipfile.ZIP_DEFLATED)
        with _public_weights(run, path) as weights:
            archive.write(weights, WEIGHTS)
        for name in _list_pictures(run):
            archive.write(run.dir / name, name)


@contextmanager
def _public_weights(run: Run, path: Path) -> Iterator[Path]:
    """The weights; for a base in a folder a copy that does not name its path. Raises CrceError for damaged ones."""
    tensors, info = tensor_files.read(run.weights_path)
    if not Path(run.job.base).is_dir():
        yield run.weights_path
        return
    copy = path.with_name(f"{path.name}.weights")
    try:
        tensor_files.write(copy, tensors, {**info, "base": bases.public_name(run.job.base)})
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _list_texts(run: Run) -> dict[str, str]:
    base, report = bases.public_name(run.job.base), run.report
    job = {**files.read_json(run.dir / JOB), "base": base, "device": "auto"}
    facts = BundleFacts(FORMAT, _list_versions())
    texts: dict[str, Any] = {FACTS: asdict(facts), JOB: job}
    if report:
        texts[REPORT] = report_to_dict(_rename_base(report, base))
    if run.person:
        texts[PERSON] = [asdict(verdict) for verdict in run.person]
    written = {name: json.dumps(each, indent=2, ensure_ascii=False) for name, each in texts.items()}
    told = [event for event in run.events() if isinstance(event, _TOLD)]
    done = run.last(DoneEvent) or DoneEvent()
    return {**written, EVENTS: "".join(to_line(event).decode() + "\n" for event in (*told, done))}


def _list_pictures(run: Run) -> list[str]:
    found = (path.relative_to(run.dir).as_posix() for path in (run.dir / "images").rglob("*.png"))
    return sorted(name for name in found if PICTURE.fullmatch(name))


def _list_versions() -> dict[str, str]:
    found = {"crce": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rename_base(report: Report, base: str) -> Report:
    return replace(report, base=base, also=tuple(_rename_base(each, base) for each in report.also))


# In


def unpack(archive: Path, base: str = "") -> Imported:
    """The run of a bundle as a new run of the store, or nothing at all.

    base: the folder of its base, where that was a folder and no run here uses it. Raises CrceError for an archive that
    holds anything but a bundle.
    """
    hidden = store() / f".new-{secrets.token_hex(8)}"
    try:
        hidden.mkdir(parents=True)
        with _opened(Path(archive)) as (bundle, entries):
            for entry in entries:
                _extract(bundle, entry, hidden / entry.filename)
        facts = _check_files(hidden, base)
        job = Run(hidden).job
        target = store() / new_id(job)
        # Rename last: a listing never sees half a run.
        hidden.rename(target)
    except OSError as error:
        raise CrceError(f"The bundle {Path(archive).name} cannot be taken in: {error.strerror or error}. "
                        "Give a zip file that `bundle` or Compare wrote.") from None  # fmt: skip
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Imported(Run(target), facts.versions, _compare_base(job.base, job.base_digest))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """The archive and its entries, whose names and sizes are fine. Raises CrceError."""
    try:
        with zipfile.ZipFile(path) as bundle:
            yield bundle, _check_entries(bundle.infolist(), path)
    except _BROKEN as error:
        raise CrceError(f"{path.name} cannot be read as a bundle: {error or 'it is torn'}.") from None


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> list[zipfile.ZipInfo]:
    names = Counter(entry.filename for entry in entries)
    if len(entries) > MOST_FILES:
        raise _refused(f"it has {len(entries)} files, and at most {MOST_FILES} are taken")
    if missing := [name for name in REQUIRED if not names[name]]:
        raise _refused(f"{missing[0]} is missing; it is no bundle of a run")
    if twice := [name for name, count in names.items() if count > 1]:
        raise _refused(f"it has {twice[0][:80]!r} twice")
    for entry in entries:
        _check_entry(entry)
    # Entries that share their bytes would give far more than the archive has.
    if sum(entry.compress_size for entry in entries) > path.stat().st_size:
        raise _refused("its files overlap")
    needed = sum(entry.file_size for entry in entries)
    if needed > (free := shutil.disk_usage(store()).free):
        raise _refused(f"it needs {needed >> 20} MB and the disk has {free >> 20} MB free")
    return entries


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name, shown = entry.filename, repr(entry.filename[:80])
    mode = entry.external_attr >> 16
    if name not in (*TEXTS, WEIGHTS) and not PICTURE.fullmatch(name):
        raise _refused(f"{shown} is no file of a bundle")
    # ZipFile cuts a name at its first NUL; the name as it is written tells.
    if name != entry.orig_filename:
        raise _refused(f"the name {shown} is not what it seems")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise _refused(f"{shown} is a link or a device")
    if entry.flag_bits & 1:
        raise _refused(f"{shown} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(f"{shown} is compressed in a way that bundles are not")
    most = MOST_TEXT if name in TEXTS else MOST_WEIGHTS if name == WEIGHTS else MOST_PICTURE
    if entry.file_size > most:
        raise _refused(f"{shown} has {entry.file_size >> 20} MB, and at most {most >> 20} are taken")
    if entry.file_size > SMALL and entry.file_size > MOST_RATIO * entry.compress_size:
        raise _refused(f"{shown} would grow to more than {MOST_RATIO} times its size")


def _extract(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """ZipFile reads no more than the size that was checked, and compares the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with bundle.open(entry) as source, open(path, "xb") as file:
        shutil.copyfileobj(source, file, _BLOCK)


def _check_files(folder: Path, base: str) -> BundleFacts:
    """Reads every file of the bundle, and writes those that name places anew. Raises CrceError."""
    facts = parse(BundleFacts, _read(folder / FACTS), FACTS)
    if facts.format != FORMAT:
        raise _refused(f"it is of the form {facts.format}, which this version of CRCE Studio does not know; update it")
    if any(has_controls(f"{name}{told}") or len(told) > 100 for name, told in facts.versions.items()):
        raise _refused("its versions cannot be read")
    files.write_json(folder / JOB, _check_job(_read(folder / JOB), base))
    job = Run(folder).job  # raises CrceError where it is not whole
    _check_weights(folder / WEIGHTS, job.base_digest)
    if (folder / REPORT).exists():
        _check_report(folder / REPORT)
    if (folder / PERSON).exists():
        parse(tuple[PersonVerdict, ...], _read(folder / PERSON), PERSON)
    pictures = {path.relative_to(folder).as_posix() for path in (folder / "images").rglob("*.png")}
    for name in pictures:
        _check_picture(folder / name, name)
    _settle_events(folder / EVENTS, pictures)
    return facts


def _read(path: Path) -> Any:
    try:
        return files.read_json(path)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{path.name} is no JSON ({error})") from None


def _check_report(path: Path) -> None:
    """Also what the app computes of a report must be there."""
    _read(path)
    try:
        report = read_report(path)
        for each in (report, *report.also):
            _ = each.judged, each.calibration, each.doubts
    except (CrceError, ValueError, RecursionError) as error:
        raise _refused(
            f"{REPORT} cannot be read ({str(error).rpartition('cannot be read: ')[2].rstrip('.')})"
        ) from None


def _check_job(facts: Any, base: str) -> dict[str, Any]:
    """job.json with its concepts and settings as this version writes them, for the base as it is found here."""
    try:
        name, created, digest = facts["name"], facts["created"], facts["base_digest"]
        config = parse(ResolvedConfig, asdict(config_from_dict(facts["config"])), f"The settings of {JOB}")
        specs = [parse_spec(json.dumps(each), JOB) for each in (facts["spec"], *facts["also"])]
        plain = isinstance(name, str) and len(name) <= 100 and not has_controls(name)
        if not (plain and isinstance(created, int | float) and math.isfinite(created) and 0 <= created < 1e11):
            raise ValueError("its name or its date is none")
        if not isinstance(digest, str) or not re.fullmatch(r"([0-9a-f]{64})?", digest):
            raise ValueError("the version of its base is none")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _refused(f"{JOB} cannot be read ({error})") from None
    spec, *also = map(spec_to_dict, specs)
    return {"base": _find_base(facts["base"], digest, base), "spec": spec, "config": asdict(config), "device": "auto",
            "dtype": "auto", "name": name, "created": created, "also": also, "base_digest": digest}  # fmt: skip


def _find_base(name: object, digest: str, given: str) -> str:
    """The base on this machine. A bundle names no path: what was a folder is known again by its digest."""
    if given:
        return str(Path(given).resolve()) if Path(given).is_dir() else given
    if name == bases.EMOJI_SD or (isinstance(name, str) and _HUB_ID.fullmatch(name)):
        return str(name)
    folders = {run.job.base for run in all_runs() if Path(run.job.base).is_dir()}
    if found := next((base for base in sorted(folders) if digest and find_digest(base) == digest), ""):
        return found
    raise CrceError(
        f"The bundle was made on the base {str(name)[:80]!r}, a folder of another machine, and no run here is of that "
        "version of it. Erase something on that base here first, or name its folder."
    )


def _compare_base(base: str, recorded: str) -> str:
    name, present = bases.public_name(base), find_digest(base)
    if not present:
        return f"The base {name} is not on this machine: until it is, only the report and the pictures can be seen."
    if not fits(recorded, present):
        return (
            f"It belongs to another version of {name} ({recorded[:8]}) than the one here ({present[:8]}): its report "
            "and its pictures can be seen, and nothing can be drawn with it."
        )
    return ""


def _check_weights(path: Path, digest: str) -> None:
    """Raises CrceError for what is no safetensors file of an erasure on the base that job.json names."""
    try:
        tensors, info = tensor_files.read(path)
        config = json.loads(info.get("config", "{}"))
    except (CrceError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise _refused(f"{WEIGHTS} is no safetensors file of an erasure") from None
    kinds = {facts.result.kind for facts in METHOD_FACTS.values()}
    if not tensors or info.get("kind", "weights") not in kinds or not isinstance(config, dict):
        raise _refused(f"{WEIGHTS} holds no erasure")
    if not fits(info.get("base_digest", ""), digest):
        raise _refused(f"{WEIGHTS} and {JOB} are of different versions of the base")


def _check_picture(path: Path, name: str) -> None:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            width, height = picture.size
            picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise _refused(f"{name} is no picture") from None
    if max(width, height) > MOST_SIDE:
        raise _refused(f"{name} has {width}×{height} pixels, and at most {MOST_SIDE} a side are taken")


def _settle_events(path: Path, pictures: set[str]) -> None:
    """What is told of the run, ended: an event that names another file than the bundle's pictures is refused."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    events = [event for line in lines if (event := from_line(line))]
    told: list[Event] = [event for event in events if isinstance(event, _TOLD)]
    for event in told:
        if isinstance(event, PreviewEvent) and event.images and not event.prompts:
            raise _refused(f"{EVENTS} has pictures without a prompt")
        if isinstance(event, PreviewEvent) and (strange := set(event.images) - pictures):
            raise _refused(f"{EVENTS} names {sorted(strange)[0][:80]!r}, which is no picture of it")
    done = next((event for event in reversed(events) if isinstance(event, DoneEvent)), DoneEvent())
    path.write_bytes(b"".join(to_line(event) + b"\n" for event in (*told, done)))


def _refused(why: str) -> CrceError:
    return CrceError(f"This bundle is refused: {why}.")
