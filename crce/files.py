"""Atomic writes, and the folder for the user's own files."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crce.errors import CrceError
from crce.redact import redact

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # of the checkout; installed, it is the folder that holds the package
# Of a checkout: pages, and beside them what was measured, a folder for each study.
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
# What comes with the program: assets/ and corefconcept/. A wheel carries them inside the package (pyproject.toml).
DATA = PACKAGE / "data" if (PACKAGE / "data").is_dir() else ROOT

_LIMIT = 2**64  # of a whole number in a file
_DIGITS = 21


def is_folder(name: str) -> bool:
    """Whether there is such a folder; also for a text that none can be called."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def checkout(instead: str = "") -> Path:
    """The root of the checkout. Raises CrceError in an installed package, which has no README.md and no docs/.

    instead: what can be done without one.
    """
    if DATA != ROOT:
        other = f"{instead}, or clone" if instead else "Clone"
        raise CrceError(
            "This writes files of the repository, and CRCE Studio runs here as an installed package. "
            f"{other} the repository and call the command there."
        )
    return ROOT


def home() -> Path:
    """The folder for runs, drafts and caches: CRCE_HOME, or the platform's data folder."""
    if chosen := os.environ.get("CRCE_HOME"):
        return Path(chosen)
    import platformdirs  # not needed on a GPU machine that only trains

    return Path(platformdirs.user_data_dir("crce-studio"))


_person: Callable[[], str] = str


def set_person(person: Callable[[], str]) -> None:
    """person: names whose folder `desk` is, at each call; "" where there is one person only."""
    global _person
    _person = person


def desk() -> Path:
    """The folder of a person's own concepts, drafts and talks: home(), or one for each where several share the app."""
    person = _person()
    return home() / "people" / person if person else home()


def cache_file(folder: str, facts: object, suffix: str) -> Path:
    """Where something computed is kept in our home, named by all that it depends on (as JSON)."""
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return home() / folder / f"{digest[:32]}{suffix}"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a temporary file beside it, flushes that to the disk and renames it: a reader never sees half a file.

    A text is written without keys and tokens. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(redact(data).encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written: it takes its place at the end, and is removed after an error.

    Raises OSError, also where the folder is not there.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Atomic, as UTF-8. Raises OSError."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove(path: Path) -> None:
    """A file, or a folder in its place. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path) -> dict:
    """Raises OSError, and ValueError for a file that is not JSON in UTF-8."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> dict:
    """Raises ValueError for what is not JSON, and for what readers differ in: a key twice, a number that is not finite
    or has more than 64 bits, and deep nesting."""
    try:
        return json.loads(
            text, object_pairs_hook=refuse_repeated_keys, parse_int=_whole, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) < _DIGITS else _LIMIT
    if not -_LIMIT < number < _LIMIT:
        raise ValueError(f"the number {digits[:_DIGITS]} is too large")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:_DIGITS]} is not a finite number")
    return number


def refuse_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `json`. Raises ValueError."""
    found = dict[str, object]()
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:80]!r} appears twice; keep one of them")
        found[name] = value
    return found
