"""A run is a directory, and its state is read from the files in it: nothing else remembers a run.

    job.json                what is asked for; written before the directory gets its name
    events.jsonl            what happened, one line each; only the process that holds `lock` adds to it
    lock                    held while a process works on the run; the system frees it even after a SIGKILL
    stop, resume            requests: end after the current step; take up again
    evaluate.json           request: judge pictures; removed when report.json is written
    checkpoint.safetensors  where training goes on; delta.safetensors: its result
    report.json, images/    what was judged and drawn

Knows no torch: the web process and the command line read runs with it.
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from crce import bases, files
from crce.concepts.spec import ConceptSpec, resolve_conflicts, spec_from_dict, spec_to_dict
from crce.config import EraseConfig, ResolvedConfig, check, config_from_dict, resolve_config
from crce.errors import CrceError

ID = re.compile(r"[0-9a-z-]{12,60}")
ENDINGS = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Job:
    """What a run is asked to do. `name` is for people; an empty one shows the concepts.

    also: further concepts that are erased in the same run.
    """

    base: str
    spec: ConceptSpec
    config: EraseConfig
    device: str = "auto"
    dtype: str = "auto"
    name: str = ""
    created: float = field(default_factory=time.time)
    also: tuple[ConceptSpec, ...] = ()

    @property
    def specs(self) -> tuple[ConceptSpec, ...]:
        """All concepts, without what one of them erases among what another keeps."""
        return resolve_conflicts((self.spec, *self.also))


@dataclass(frozen=True)
class ResolvedJob(Job):
    """A job whose settings leave nothing open: what a run on disk has."""

    config: ResolvedConfig


# What a run is at, for people.
PHASES = {
    "bank": "preparing",
    "train": "erasing",
    "evaluate": "judging pictures",
    "pictures": "drawing the report's terms",
}


@dataclass(frozen=True)
class Progress:
    """The phase (see PHASES), how much of it is done, and the seconds left where known."""

    phase: str
    done: int
    of: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class Run:
    """A run's directory. Holds no facts of its own, so it is never out of date."""

    dir: Path

    @property
    def id(self) -> str:
        return self.dir.name

    @property
    def job(self) -> ResolvedJob:
        """Raises CrceError if job.json is not what `create` wrote."""
        try:
            return _read_job(self.dir / "job.json", *_stamp(self.dir / "job.json"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CrceError(f"The run {self.dir} is broken: its job.json cannot be read ({error}). "
                            "Delete the directory.") from None  # fmt: skip

    @property
    def title(self) -> str:
        return self.job.name or " + ".join(spec.name for spec in self.job.specs)

    @property
    def state(self) -> str:
        """queued, running, done, stopped, failed; or interrupted: begun, not ended, and nobody is at it."""
        mark = self._mark()
        if mark == "start" and locked(self.dir / "lock"):
            return "running"
        # An evaluation may be asked for in the moment in which a run ends, so it queues a run that is done.
        if mark is None or (self.dir / "resume").exists() or (mark == "done" and self.evaluation):
            return "queued"
        return "interrupted" if mark == "start" else mark

    def events(self) -> tuple[dict, ...]:
        """All events; a line torn by a kill is left out."""
        path = self.dir / "events.jsonl"
        try:
            return _read_events(path, *_stamp(path))
        except FileNotFoundError:
            return ()

    def last(self, *kinds: str) -> dict | None:
        """The latest event of one of these kinds."""
        return next((event for event in reversed(self.events()) if event["kind"] in kinds), None)

    @property
    def progress(self) -> Progress | None:
        """How far the current or last attempt came; None before its first step."""
        last = self.last("start", "phase", "step")
        if last is None or last["kind"] == "start":
            return None
        done = last["step"] if last["kind"] == "step" else last["done"]
        return Progress(last.get("phase", "train"), done, last["of"], last.get("seconds_left"))

    @property
    def weights_path(self) -> Path:
        return self.dir / "delta.safetensors"

    @property
    def erased(self) -> bool:
        """Whether training is finished; its weights are in `weights_path`."""
        return self.weights_path.exists()

    @property
    def evaluation(self) -> dict | None:
        """The evaluation that is asked for and not done yet."""
        return _read_if_there(self.dir / "evaluate.json")

    @property
    def report(self) -> dict | None:
        return _read_if_there(self.dir / "report.json")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.dir.rglob("*") if path.is_file())

    @property
    def stopping(self) -> bool:
        return (self.dir / "stop").exists()

    def request_stop(self) -> None:
        """Ends a running run after its current step, takes a queued one out of the queue at once."""
        (self.dir / "stop").touch()
        try:
            with self.held():
                mark = self._mark()
                if mark not in ENDINGS:
                    self.record("stopped", step=self.kept_step)
                self.clear("stop", "resume", *["evaluate.json"] * (mark == "done"))
        except Busy:
            pass  # Whoever holds the run sees the file.

    def request_resume(self) -> None:
        """Queues a stopped, failed or interrupted run again. Raises CrceError for a running or done one."""
        state = self.state
        if state in ("running", "done"):
            raise CrceError(f"The run {self.id} is {state}; there is nothing to resume.")
        self.clear("stop")
        (self.dir / "resume").touch()

    def request_evaluate(self, images: int, ask: str = "target") -> None:
        """Asks for a new report with `images` pictures per prompt, after the training if that is not done."""
        files.write_json(self.dir / "evaluate.json", evaluation(images, ask))
        if self.state in ("stopped", "failed", "interrupted"):
            self.request_resume()

    def rename(self, name: str) -> None:
        """Changes what people read; the directory keeps its id. Raises CrceError for a name too long."""
        if len(name) > 100 or not name.isprintable():
            raise CrceError(f"{name[:40]!r}… is no name; use at most 100 printable characters.")
        _write_job(self.dir, replace(self.job, name=name.strip()))

    def delete(self) -> None:
        """Raises CrceError while the run is worked on."""
        with self.held():
            # Renamed first: no listing meets half a directory, not even after a kill.
            doomed = self.dir.with_name(f".deleted-{self.id}")
            self.dir.rename(doomed)
            shutil.rmtree(doomed)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The right to change the run. Raises Busy if another process or thread has it."""
        # Not bound to a thread: a server may advance the generator that holds the run from any of its own.
        lock = FileLock(self.dir / "lock", thread_local=False)
        try:
            hold = lock.acquire(timeout=0.5)  # `locked` holds it for a moment, to look
        except Timeout:
            raise Busy(f"The run {self.id} is being worked on. Stop it first, or wait.") from None
        except OSError as error:
            raise CrceError(f"{self.dir} cannot be written: {error.strerror}. Make it writable.") from None
        with hold:
            yield

    def record(self, kind: str, **facts) -> dict:
        """Adds an event and returns it. Only for whoever holds the run."""
        event = {"time": time.time(), "kind": kind, **facts}
        with open(self.dir / "events.jsonl", "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A kill may have torn the last line; what follows must not be lost with it.
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(event).encode() + b"\n")
        return event

    @property
    def kept_step(self) -> int:
        """The step after which a resumed run goes on."""
        last = self.last("checkpoint")
        return last["step"] if last else 0

    def clear(self, *requests: str) -> None:
        for name in requests:
            (self.dir / name).unlink(missing_ok=True)

    def _mark(self) -> str | None:
        last = self.last("start", *ENDINGS)
        return last and last["kind"]


class Busy(CrceError):
    """Another process or thread holds the run."""


def create(job: Job, folder: Path | None = None, queued: bool = True) -> Run:
    """A new run in the store, or in an empty `folder`; `queued` offers it to the worker.

    Raises CrceError for a base that is no model, for fewer terms than are drawn per step, and for a folder in use
    or not writable.
    """
    # The worker stands in another folder, so a path must be whole.
    local = job.base != bases.EMOJI_SD and Path(job.base).is_dir()
    base = str(Path(job.base).resolve()) if local else job.base
    job = replace(job, base=base, config=resolve_config(job.config, base))
    for spec in job.specs:
        check(spec, job.config)
    target = Path(folder) if folder else store() / _new_id(job)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CrceError(f"{target} is in use. Give an empty or a new folder, or --resume the run in it.")
    hidden = target.with_name(f".new-{target.name}")
    try:
        _build(job, hidden, queued)
        # No run is ever seen half made.
        hidden.rename(target)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise CrceError(f"The run directory {target} cannot be written: {error.strerror}.") from None
    return Run(target)


def _build(job: Job, folder: Path, queued: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_job(folder, job)
    if not queued:
        # Counts as begun, by this process: the worker leaves it alone.
        Run(folder).record("start", pid=os.getpid())


def evaluation(images: int, ask: str = "target") -> dict:
    """What evaluate.json says. Raises CrceError for a number of pictures that makes no sense."""
    if not 1 <= images <= 1000:
        raise CrceError(f"images is {images}; give a number from 1 to 1000.")
    return {"images": images, "ask": ask}


def store() -> Path:
    return files.home() / "runs"


def all_runs() -> list[Run]:
    """The runs of the store, newest first. A broken one is left out; `find` says what is wrong with it."""
    found = {Run(path): _job(Run(path)) for path in store().glob("*") if ID.fullmatch(path.name)}
    whole = {run: job.created for run, job in found.items() if job}
    return sorted(whole, key=lambda run: (whole[run], run.id), reverse=True)


def find(name: str) -> Run:
    """The run of the store with this id. Raises CrceError if there is none or it is broken."""
    path = store() / name
    if not ID.fullmatch(name) or path.resolve().parent != store().resolve() or not path.is_dir():
        raise CrceError(f"There is no run {name[:80]!r}. `python -m crce runs` lists them.")
    return opened(path)


def opened(folder: Path) -> Run:
    """The run in any folder. Raises CrceError if it holds none."""
    if not (folder / "job.json").is_file():
        raise CrceError(f"{folder} holds no run: job.json is missing. Give the --out of an `erase`, or a run's id.")
    run = Run(folder)
    _ = run.job
    return run


def locked(path: Path) -> bool:
    """Whether some process holds this lock file now. What cannot be locked is held by nobody."""
    if not path.is_file():
        return False
    try:
        with FileLock(path).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _job(run: Run) -> ResolvedJob | None:
    try:
        return run.job
    except CrceError:
        return None


def _new_id(job: Job) -> str:
    """Time, concept and chance: `20260801-093015-dog-animal-3fa2`."""
    concept = job.spec.slug[:20].strip("-")
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(job.created))}-{concept}-{secrets.token_hex(2)}"


def _write_job(folder: Path, job: Job) -> None:
    also = [spec_to_dict(spec) for spec in job.also]
    facts = {**vars(job), "spec": spec_to_dict(job.spec), "config": asdict(job.config), "also": also}
    files.write_json(folder / "job.json", facts)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file does, so that a file read once is not read again."""
    facts = path.stat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=1024)
def _read_job(path: Path, *stamp: int) -> ResolvedJob:
    facts = files.read_json(path)
    spec, config = spec_from_dict(facts["spec"]), config_from_dict(facts["config"])
    also = tuple(map(spec_from_dict, facts.get("also", ())))
    return ResolvedJob(**{**facts, "spec": spec, "config": config, "also": also})


@lru_cache(maxsize=256)
def _read_events(path: Path, *stamp: int) -> tuple[dict, ...]:
    parsed = (_parsed(line) for line in path.read_bytes().split(b"\n"))
    return tuple(event for event in parsed if isinstance(event, dict) and "kind" in event)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _read_if_there(path: Path) -> dict | None:
    try:
        return files.read_json(path)
    except (OSError, ValueError):
        return None
