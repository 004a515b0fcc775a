"""What a person said of a run's pictures: person.json in its folder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from crce import files
from crce.errors import CrceError
from crce.evaluation.agreement import PersonVerdict
from crce.records import read


def read_verdicts(folder: Path) -> tuple[PersonVerdict, ...]:
    """Empty where nobody has said anything, and where the file cannot be read."""
    try:
        return read(tuple[PersonVerdict, ...], folder / "person.json")
    except CrceError:
        return ()


def add_verdict(folder: Path, verdict: PersonVerdict) -> tuple[PersonVerdict, ...]:
    """Keeps the verdict in place of an earlier one on the same picture, and returns all. Raises CrceError."""
    try:
        with FileLock(folder / "person.lock"):
            others = [v for v in read_verdicts(folder) if v.picture != verdict.picture]
            return _write(folder, [*others, verdict])
    except OSError as error:
        raise CrceError(f"{folder} cannot be written: {error.strerror}. Make it writable.") from None


def _write(folder: Path, verdicts: Sequence[PersonVerdict]) -> tuple[PersonVerdict, ...]:
    files.write_json(folder / "person.json", [asdict(v) for v in verdicts])
    return tuple(verdicts)
