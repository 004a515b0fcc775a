"""A run is a directory, and its state is read from the files in it: nothing else remembers a run.

    job.json                the settings; written before the directory gets its name
    events.jsonl            what happened (see `crce.runs.events`); only the process that holds `lock` appends to it
    lock                    held while a process works on the run; the system frees it even after a SIGKILL
    stop, resume            requests: stop after the current step; continue
    evaluate.json           request: judge pictures; removed when report.json is written
    checkpoint.safetensors  where training continues (-previous: the state before, -broken-1: one that was damaged);
                            delta.safetensors: its result
    report.json, images/    what was judged and drawn; person.json: what a person said of pictures
    summary.json            a copy of what a list shows (see `crce.runs.summary`)

Imports no torch: the web process and the command line read runs with it.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field

from crce import bases, files
from crce.base_version import check_version, find_digest
from crce.concepts.library import read_spec
from crce.concepts.spec import ConceptSpec, resolve_conflicts, spec_to_dict
from crce.config import EraseConfig, ResolvedConfig, check, config_from_dict, resolve_config
from crce.errors import CrceError
from crce.evaluation.agreement import Agreement, PersonVerdict, measure_agreement
from crce.evaluation.questions import ASKS
from crce.evaluation.report import Report, read_report
from crce.judges.choices import AUTO, choose_judge
from crce.records import UNREADABLE, describe, parse, read
from crce.runs.events import (
    ENDINGS,
    DoneEvent,
    Event,
    Progress,
    StartEvent,
    StoppedEvent,
    from_line,
    to_line,
)
from crce.runs.history import Curve, History, Stamp, stamp_of
from crce.runs.person import read_verdicts
from crce.runs.summary import JobFacts, ReportFacts, details_of, summary_of
from crce.text import has_controls
from crce.token_count import fit_terms

E = TypeVar("E", bound=Event)
ID = re.compile(r"[0-9a-z-]{12,60}")
MOST_IMAGES = 1000  # judged pictures per prompt
WEIGHTS = "delta.safetensors"
HALF_MADE_SECONDS = 60  # nobody takes this long to create a run
_FILES = {"job.json", "events.jsonl", "lock", "stop", "resume", "evaluate.json", "report.json", "person.json",
          "checkpoint.safetensors", "delta.safetensors"}  # fmt: skip
_LAST_YEAR = 253402300800  # seconds until the year 10000


@dataclass(frozen=True)
class Job:
    """What a run is asked to do.

    device, dtype: "auto" leaves the choice to the process that works on it. name: shown to people; where it is empty,
    the concepts are shown. created: seconds since 1970. also: further concepts to erase in the same run. base_digest:
    the version of the base (`base_version`), which `create` finds out; empty where it is not known.
    """

    base: str
    spec: ConceptSpec
    config: EraseConfig
    device: str = "auto"
    dtype: str = "auto"
    name: str = ""
    created: Annotated[float, Field(ge=0, lt=_LAST_YEAR)] = field(default_factory=time.time)
    also: tuple[ConceptSpec, ...] = ()
    base_digest: str = ""

    @property
    def specs(self) -> tuple[ConceptSpec, ...]:
        """All concepts; a term that one of them erases is no retain of another."""
        return resolve_conflicts((self.spec, *self.also))


@dataclass(frozen=True)
class ResolvedJob(Job):
    """A job whose settings leave nothing open: what a run on disk has."""

    config: ResolvedConfig


@dataclass(frozen=True)
class EvaluationRequest:
    """evaluate.json: `images` pictures per prompt; `ask`, what is asked of a coref's picture: "target" or "coref";
    `judge`: who is asked (see `judges.load`).

    Raises CrceError for a number of pictures out of range and for another `ask`.
    """

    images: int
    ask: str = "target"
    judge: str = AUTO

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_IMAGES:
            raise CrceError(f"images is {self.images}; give a number from 1 to {MOST_IMAGES}.")
        if self.ask not in ASKS:
            raise CrceError(f"ask is {self.ask!r}; use one of {', '.join(ASKS)}.")


@dataclass(frozen=True)
class Run:
    """A run's directory. Everything is read from its files, so it is never out of date."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def job(self) -> ResolvedJob:
        """Raises CrceError if job.json is not what `create` wrote."""
        try:
            return _read_job(self.dir / "job.json", stamp_of(self.dir / "job.json"))
        except UNREADABLE as error:
            raise CrceError(f"The run {self.dir} is broken: its job.json cannot be read ({describe(error)}). "
                            "Delete the directory.") from None  # fmt: skip

    def check_base(self, present: str) -> None:
        """Raises CrceError if the run belongs to another version of its base than the digest `present`. A run that
        records no version is taken to fit."""
        check_version(f"The run {self.title!r}", self.job.base, self.job.base_digest, present)

    def record_base(self, present: str) -> None:
        """Records the version of a base that was not on this machine when the run was created."""
        if present and not self.job.base_digest and not self.kept_step and not self.erased:
            _write_job(self.dir, replace(self.job, base_digest=present))

    @property
    def title(self) -> str:
        return self.facts.title

    @property
    def state(self) -> str:
        """queued, running, done, stopped, failed; or interrupted: started, not ended, and nobody works on it."""
        mark = self.history.mark
        if isinstance(mark, StartEvent) and is_locked(self.dir / "lock"):
            return "running"
        # An evaluation may be requested just as a run ends, so it queues a run that is done.
        waits = isinstance(mark, DoneEvent) and self._has("evaluate.json") and self.evaluation
        if mark is None or self._has("resume") or waits:
            return "queued"
        return "interrupted" if isinstance(mark, StartEvent) else mark.kind

    def events(self) -> tuple[Event, ...]:
        """All events, read anew; a line torn by a kill is left out."""
        try:
            lines = (self.dir / "events.jsonl").read_bytes().split(b"\n")
        except OSError:
            return ()
        return tuple(event for line in lines if (event := from_line(line)))

    @property
    def history(self) -> History:
        """What happened so far. Costs a look at the file, and the reading of what is new in it."""
        return summary_of(self.dir).history()

    @property
    def curve(self) -> Curve:
        """The losses and previews so far."""
        return details_of(self.dir).read()

    def last(self, kind: type[E]) -> E | None:
        """The latest event of this class."""
        return self.history.find(kind)

    @property
    def progress(self) -> Progress | None:
        """How far the current or last attempt came; None before its first step."""
        return self.history.progress

    @property
    def facts(self) -> JobFacts:
        """What a list shows of the job. Raises CrceError if job.json is not what `create` wrote."""
        return summary_of(self.dir).job(self._read_facts)

    def _read_facts(self) -> JobFacts:
        stamp, job = stamp_of(self.dir / "job.json"), self.job
        title = job.name or " + ".join(spec.name for spec in job.specs)
        return JobFacts(stamp or (0, 0, 0), job.created, title, job.name, job.spec.slug, job.config.method,
                        job.config.title, job.base, job.device)  # fmt: skip

    @property
    def scores(self) -> ReportFacts:
        """What a list shows of the report."""
        return summary_of(self.dir).report(self._read_report)

    @property
    def weights_path(self) -> Path:
        return self.dir / WEIGHTS

    @property
    def checkpoint_path(self) -> Path:
        return self.dir / "checkpoint.safetensors"

    @property
    def erased(self) -> bool:
        """Whether training is finished; its weights are in `weights_path`."""
        return self._has(WEIGHTS)

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self.dir}/{name}")

    @property
    def evaluation(self) -> EvaluationRequest | None:
        """The evaluation that is requested and not done yet; None where the file cannot be read."""
        if not self._has("evaluate.json"):
            return None
        try:
            return read(EvaluationRequest, self.dir / "evaluate.json")
        except CrceError:
            return None

    @property
    def report(self) -> Report | None:
        """None before the run is evaluated, and where report.json cannot be read. It has today's agreement."""
        report = self._read_report()
        return report and replace(report, agreement=self._agree(report))

    def _read_report(self) -> Report | None:
        try:
            return read_report(self.dir / "report.json")
        except CrceError:
            return None

    @property
    def agreement(self) -> Agreement | None:
        """How far a person agrees with the judge of the report, or without one with the judge that Compare showed."""
        report = self.report
        return report.agreement if report else self._agree(None)

    def _agree(self, report: Report | None) -> Agreement | None:
        person = self.person
        if report:
            return measure_agreement(person, report.judge, report.judged)
        judge = next((verdict.judge for verdict in reversed(person) if verdict.judge), "")
        return measure_agreement(person, judge, {})

    @property
    def person(self) -> tuple[PersonVerdict, ...]:
        """What a person said of the run's pictures."""
        return read_verdicts(self.dir)

    @property
    def not_judged(self) -> str:
        """Why the last evaluation that was asked for could not be made; empty if it was, or none was asked for."""
        return self.history.not_judged

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out in the run, and why; each line once."""
        return self.history.notes

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(map(_measure, self.dir.rglob("*")))

    @property
    def about_size(self) -> int:
        """The same when something last happened in the run."""
        summary_of(self.dir).history()
        return summary_of(self.dir).size(lambda: self.size)

    def summarized(self) -> "Run":
        """The run, with all that a list shows kept for the next process. Raises CrceError for a broken one."""
        _ = self.facts, self.scores, self.about_size
        summary_of(self.dir).save()
        return self

    @property
    def stopping(self) -> bool:
        return (self.dir / "stop").exists()

    def request_stop(self) -> None:
        """Stops a running run after its current step, and takes a queued one out of the queue at once."""
        self._ask("stop")
        try:
            with self.hold():
                mark = self.history.mark
                if not isinstance(mark, ENDINGS):
                    self.record(StoppedEvent(self.kept_step))
                if isinstance(mark, DoneEvent):
                    self.clear("evaluate.json")
                self.clear("stop", "resume")
        except Busy:
            pass  # Whoever holds the run sees the file.
        except OSError as error:
            raise self._unwritable(error) from None

    def _ask(self, request: str) -> None:
        try:
            (self.dir / request).touch()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> CrceError:
        return CrceError(f"{self.dir} cannot be written: {error.strerror}. Make it writable.")

    def request_resume(self) -> None:
        """Queues a stopped, failed or interrupted run again. Raises CrceError for a running or done one."""
        state = self.state
        if state in ("running", "done"):
            raise CrceError(f"The run {self.id} is {state}; there is nothing to resume.")
        self.clear("stop")
        self._ask("resume")

    def request_evaluate(self, images: int, ask: str = "target", judge: str = AUTO) -> None:
        """Requests a new report with `images` pictures per prompt; training is finished first.

        Raises CrceError for a number of pictures out of range, for a judge that is named and cannot be used, and if the
        run belongs to another version of its base.
        """
        self.check_base(find_digest(self.job.base))
        if judge != AUTO:
            choose_judge(self.job.base, judge)
        files.write_json(self.dir / "evaluate.json", asdict(EvaluationRequest(images, ask, judge)))
        if self.state in ("stopped", "failed", "interrupted"):
            self.request_resume()

    def rename(self, name: str) -> None:
        """Changes the name that people see; the directory keeps its id. Raises CrceError for a name too long."""
        if len(name) > 100 or has_controls(name):
            raise CrceError(f"{name[:40]!r}… is no name; use at most 100 printable characters.")
        _write_job(self.dir, replace(self.job, name=name.strip()))

    def set_microbatch_size(self, rows: int) -> None:
        """Continue with this many terms at once: the result differs by rounding only. Raises CrceError out of range."""
        _write_job(self.dir, replace(self.job, config=replace(self.job.config, microbatch_size=rows)))

    def delete(self) -> None:
        """Removes the directory, also of a broken run. Raises Busy while a process works on the run."""
        lock = self.dir / "lock"
        # A folder or a link that leads nowhere in its place is held by nobody.
        with nullcontext() if os.path.lexists(lock) and not lock.is_file() else self.hold():
            # Rename first: a listing never sees half a directory, not even after a kill.
            doomed = self.dir.with_name(f".deleted-{self.id}")
            self.dir.rename(doomed)
            # What resists, or what a kill leaves, is removed by `tidy`.
            shutil.rmtree(doomed, ignore_errors=True)

    def tidy(self) -> None:
        """Removes the files that a kill left half written. Only for the process that holds the run."""
        for path in _half_written(self.dir):
            path.unlink(missing_ok=True)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Locks the run for writing. Raises Busy if another process or thread holds it."""
        # Not bound to a thread: a server may advance the generator that holds the run from any of its threads.
        lock = FileLock(self.dir / "lock", thread_local=False)
        try:
            held = lock.acquire(timeout=0.5)  # `is_locked` holds it briefly
        except Timeout:
            raise Busy(f"The run {self.id} is being worked on. Stop it first, or wait.") from None
        except OSError as error:
            raise self._unwritable(error) from None
        with held:
            yield

    def record(self, event: E) -> E:
        """Appends the event and returns it. Only for the process that holds the run. Raises OSError."""
        with open(self.dir / "events.jsonl", "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A kill may have torn the last line: start a new one, so that this event can be read.
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(to_line(event) + b"\n")
        return event

    @property
    def kept_step(self) -> int:
        """The step after which a resumed run continues."""
        return self.history.kept_step

    def clear(self, *requests: str) -> None:
        """Removes request files: stop, resume, evaluate.json."""
        for name in requests:
            files.remove(self.dir / name)


class Busy(CrceError):
    """Another process or thread holds the run."""


def create(job: Job, folder: Path | None = None, queued: bool = True, leave_out_long: bool = False) -> Run:
    """A new run in the store, or in an empty or new `folder`.

    queued: the worker takes it up; else only the caller does. leave_out_long: erase without the terms that are longer
    than the base reads. Raises CrceError for such terms else, for a base that is no model, or has no judge for a run
    until gone, for fewer terms than are drawn per step, and for a folder in use or not writable.
    """
    # The worker runs in another folder, so a local path must be absolute.
    local = job.base != bases.EMOJI_SD and Path(job.base).is_dir()
    base = str(Path(job.base).resolve()) if local else job.base
    job = replace(job, base=base, config=resolve_config(job.config, base), base_digest=find_digest(base))
    _refuse_repeats(job.specs)
    spec, *also = (fit_terms(spec, base, leave_out_long) for spec in (job.spec, *job.also))
    job = replace(job, spec=spec, also=tuple(also))
    bases.check_method(base, job.config.method, job.config.base_method)
    for spec in job.specs:
        check(spec, job.config)
    if job.config.until_gone:
        bases.require_judge(base)
    target = Path(folder) if folder else store() / new_id(job)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CrceError(f"{target} is in use. Give an empty or a new folder, or --resume the run in it.")
    hidden = target.with_name(f".new-{target.name}")
    try:
        _build(job, hidden, queued)
        # Rename last: a listing never sees half a run.
        hidden.rename(target)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise CrceError(f"The run directory {target} cannot be written: {error.strerror}.") from None
    return Run(target)


def _refuse_repeats(specs: tuple[ConceptSpec, ...]) -> None:
    """One concept has one adapter, and one share of the steps."""
    slugs = [spec.slug for spec in specs]
    if again := [spec for spec in specs if slugs.count(spec.slug) > 1]:
        raise CrceError(f"{again[0].name!r} is in this run twice. Name it once.")


def _build(job: Job, folder: Path, queued: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_job(folder, job)
    if not queued:
        # Counts as started by this process, so the worker leaves it alone.
        Run(folder).record(StartEvent(os.getpid()))


def store() -> Path:
    """The folder of all runs that were not given one."""
    return files.home() / "runs"


def all_runs() -> list[Run]:
    """The runs of the store, newest first, without the broken ones."""
    created = {}
    for run in _list_folders():
        with suppress(CrceError):
            created[run] = _check(run)
    return sorted(created, key=lambda run: (created[run], run.id), reverse=True)


def broken_runs(fine: Sequence[Run] = ()) -> dict[Run, str]:
    """The broken runs of the store, and what is wrong with each. They can only be deleted. fine: those known not to be
    broken."""
    problems = {}
    for run in {*_list_folders()} - {*fine}:
        try:
            _check(run)
        except CrceError as error:
            if run.dir.is_dir():  # it may have been deleted meanwhile
                problems[run] = str(error)
    return problems


def _list_folders() -> list[Run]:
    return [Run(path) for path in store().glob("*") if ID.fullmatch(path.name) and path.is_dir()]


def tidy() -> None:
    """Removes what kills left in the store: runs half created or half deleted, and files half written."""
    for path in store().glob(".deleted-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in store().glob(".new-*"):
        # Another process may be at it just now.
        if time.time() - path.stat().st_mtime > HALF_MADE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    for path in store().glob("*"):
        if ID.fullmatch(path.name) and _half_written(path):
            with suppress(CrceError), Run(path).hold():
                Run(path).tidy()


def _half_written(folder: Path) -> list[Path]:
    """The temporary files of what only the process that holds a run writes (see `files.write_atomic`)."""
    return [path for name in ("checkpoint", "delta", "report", "summary") for path in folder.glob(f".{name}.*")]


def find(name: str) -> Run:
    """The run of the store with this id. Raises CrceError if there is none or it is broken."""
    return open_run(find_folder(name).dir)


def find_folder(name: str) -> Run:
    """The same, also if it is broken. Raises CrceError if there is none."""
    path = store() / name
    if not ID.fullmatch(name) or path.resolve().parent != store().resolve() or not path.is_dir():
        raise CrceError(f"There is no run {name[:80]!r}. `python -m crce runs` lists them.")
    return Run(path)


def open_run(folder: Path) -> Run:
    """The run in any folder. Raises CrceError if there is none or it is broken."""
    if not (folder / "job.json").is_file():
        raise CrceError(f"{folder} holds no run: job.json is missing. Give the --out of an `erase`, or a run's id.")
    run = Run(folder)
    _check(run)
    _ = run.job
    return run


def _check(run: Run) -> float:
    """When the run was created. Raises CrceError if it is broken."""
    with suppress(OSError):
        if folders := _FILES & {entry.name for entry in os.scandir(run.dir) if entry.is_dir()}:
            raise CrceError(f"The run {run.dir} is broken: {min(folders)} is a folder. Delete the directory.")
    return run.summarized().facts.created


def is_locked(path: Path) -> bool:
    """Whether some process holds this lock file now. A file that cannot be locked is held by nobody."""
    if not path.is_file():
        return False
    try:
        with FileLock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def new_id(job: Job) -> str:
    """Time, concept and a random part: `20260801-093015-dog-animal-3fa2`."""
    concept = job.spec.slug[:20].strip("-")
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(job.created))}-{concept}-{secrets.token_hex(2)}"


def _write_job(folder: Path, job: Job) -> None:
    also = [spec_to_dict(spec) for spec in job.also]
    facts = {**vars(job), "spec": spec_to_dict(job.spec), "config": asdict(job.config), "also": also}
    files.write_json(folder / "job.json", facts)


@lru_cache(maxsize=64)
def _read_job(path: Path, stamp: Stamp | None) -> ResolvedJob:
    facts = files.read_json(path)
    spec, *also = (read_spec(each, "concept") for each in (facts["spec"], *facts.get("also", ())))
    read = {**facts, "spec": spec, "config": config_from_dict(facts["config"]), "also": tuple(also)}
    return parse(ResolvedJob, read, "job")


def _measure(path: Path) -> int:
    """Bytes of a file; 0 for what is none, or was removed meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
