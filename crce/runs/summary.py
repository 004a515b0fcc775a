"""What a list shows of a run: kept in memory, and beside the run's files as summary.json for the next process.

It is a copy. Each part names the stamp of the file it was made from and is made again when that file is another one, so
summary.json may be missing, old or damaged: then the list is slower once.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from crce import files
from crce.errors import CrceError
from crce.evaluation.report import Report
from crce.records import parse
from crce.runs.events import ENDINGS, from_line, to_line
from crce.runs.history import Curve, History, Stamp, stamp_of

MOST_RUNS = 4096  # whose summaries are kept in memory
MOST_CURVES = 16
UNSAVED = 64 << 10  # bytes of events that the next process may have to read again


@dataclass(frozen=True)
class JobFacts:
    """From job.json. title: see `Run.title`. slug: of the first concept; label: of the method, for people."""

    stamp: Stamp
    created: float
    title: str
    name: str
    slug: str
    method: str
    label: str
    base: str
    device: str


@dataclass(frozen=True)
class ReportFacts:
    """From report.json. scores: rate and n of each metric, of the strict ones where it has them; None without a report.
    seconds: the evaluation took; images: pictures per term."""

    stamp: Stamp | None = None
    scores: dict[str, tuple[float, int]] | None = None
    strict: bool = False
    seconds: float | None = None
    images: int = 0

    @classmethod
    def of(cls, stamp: Stamp | None, report: Report | None) -> "ReportFacts":
        if report is None:
            return cls(stamp)
        scores = {key: (each.rate, each.n) for key, each in (report.strict or report.metrics).items()}
        return cls(stamp, scores, bool(report.strict), report.seconds, report.images)


@dataclass(frozen=True)
class Saved:
    """summary.json. last: of the history, as lines of events.jsonl."""

    job: JobFacts
    report: ReportFacts
    size: int
    stamp: Stamp | None
    offset: int
    end: str
    counts: dict[str, int]
    last: dict[str, tuple[int, str]]
    notes: tuple[str, ...]


class Summary:
    """What is known of one run. Each part is brought up to date when it is asked for."""

    def __init__(self, folder: Path):
        self._folder, self._lock = folder, Lock()
        # Texts: they are looked at for each run of a list, and paths cost more than the look.
        self._paths = {name: f"{folder}/{name}" for name in ("job.json", "report.json", "events.jsonl")}
        self._job: JobFacts | None = None
        self._report, self._history, self._size = ReportFacts(), History(), -1
        self._saved_offset = 0
        self._load()

    def history(self) -> History:
        with self._lock:
            known = self._history
            with suppress(OSError):
                try:
                    self._history = known.read_on(self._paths["events.jsonl"])
                except ValueError:  # summary.json is damaged
                    self._history = History().read_on(self._paths["events.jsonl"])
            if self._history is not known:
                self._size = -1
            return self._history

    def job(self, read: Callable[[], JobFacts]) -> JobFacts:
        """read: reads job.json. Raises what it raises."""
        with self._lock:
            if self._job is None or self._job.stamp != stamp_of(self._paths["job.json"]):
                self._job, self._saved_offset = read(), -1
            return self._job

    def report(self, read: Callable[[], Report | None]) -> ReportFacts:
        """read: reads report.json."""
        with self._lock:
            stamp = stamp_of(self._paths["report.json"])
            if self._report.stamp != stamp:
                self._report, self._size, self._saved_offset = ReportFacts.of(stamp, read() if stamp else None), -1, -1
            return self._report

    def size(self, count: Callable[[], int]) -> int:
        """Of all files: counted again whenever something happened in the run."""
        with self._lock:
            if self._size < 0:
                self._size = count()
            return self._size

    def save(self) -> None:
        """Writes summary.json if the next process would have to read much without it."""
        with self._lock:
            ended = isinstance(self._history.mark, ENDINGS) or self._saved_offset < 0
            unsaved = self._history.offset - self._saved_offset
            if self._job and self._size >= 0 and unsaved > (0 if ended else UNSAVED):
                self._saved_offset = self._history.offset
                _write(self._folder, self._pack(self._job))

    def _pack(self, job: JobFacts) -> Saved:
        history = self._history
        last = {kind: (number, to_line(event).decode()) for kind, (number, event) in history.last.items()}
        return Saved(job, self._report, self._size, history.stamp, history.offset, history.end, history.counts, last,
                     history.notes)  # fmt: skip

    def _load(self) -> None:
        with suppress(OSError, ValueError, RecursionError, CrceError):
            path = self._folder / "summary.json"
            saved = parse(Saved, files.read_json(path), str(path))
            last = {kind: (n, event) for kind, (n, line) in saved.last.items() if (event := from_line(line.encode()))}
            self._history = History(saved.stamp, saved.offset, saved.end, saved.counts, last, saved.notes)
            self._job, self._report = saved.job, saved.report
            self._saved_offset = saved.offset
            unchanged = saved.stamp == stamp_of(self._paths["events.jsonl"])
            self._size = saved.size if unchanged else -1


def _write(folder: Path, saved: Saved) -> None:
    """Without the folder if it is not there, since the run may just have been deleted; and not at all on a disk that
    is full or may not be written: it is only a copy."""
    with suppress(OSError), files.replacing(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(asdict(saved), ensure_ascii=False), encoding="utf-8")


@lru_cache(maxsize=MOST_RUNS)
def summary_of(folder: Path) -> Summary:
    return Summary(folder)


class Details:
    """The loss curve and the previews of one run, brought up to date when they are asked for."""

    def __init__(self, folder: Path):
        self._path, self._lock, self._curve = folder / "events.jsonl", Lock(), Curve()

    def read(self) -> Curve:
        with self._lock:
            with suppress(OSError):
                self._curve = self._curve.read_on(self._path)
            return self._curve


@lru_cache(maxsize=MOST_CURVES)
def details_of(folder: Path) -> Details:
    return Details(folder)
