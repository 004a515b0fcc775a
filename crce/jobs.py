"""The one way a run is worked on, for the worker, the command line and whatever else may carry it."""

import gc
import os
import re
import secrets
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict
from errno import EACCES, EDQUOT, EFBIG, ENOSPC, EPERM, EROFS
from shutil import disk_usage
from statistics import median
from typing import TYPE_CHECKING

from crce import files
from crce.concepts import spec_to_dict
from crce.errors import CrceError
from crce.runs import Run, locked

# torch takes seconds to import, and the web process and `--help` must not.
if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.delta import Delta
    from crce.diffusion import Diffusion
    from crce.erase import Step
    from crce.judge import EmbeddedJudge
    from crce.report import Answers

WRITE_EVERY = 0.5  # seconds between two step events in events.jsonl
SHOWN_SEEDS = 2  # pictures per prompt that a report keeps to look at
SHOWN_TERMS = 16  # terms whose pictures are drawn between two events
SMALLER = "Free memory on the device and resume, or start again with 1 term at once (--rows 1): it needs the least."
FULL = "Free some space and resume."
LOCKED = "Make it writable and resume."
UNWRITABLE = {ENOSPC: FULL, EDQUOT: FULL, EFBIG: FULL, EACCES: LOCKED, EPERM: LOCKED, EROFS: LOCKED}
SECRET = re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{8,}")


class Stopped(Exception):
    """A stop was asked for."""


class Models:
    """The base that is loaded: one at a time, since two may not fit on the device."""

    def __init__(self, device: str = "auto"):
        self._device = device
        self._key: tuple[str, str, str] | None = None
        self.model: Diffusion | None = None
        self._judges: dict[str, EmbeddedJudge] = {}

    def get(self, base: str, device: str = "auto", dtype: str = "auto") -> "Diffusion":
        """The base on our own device, unless another is named. Raises CrceError if it cannot be loaded."""
        from crce.diffusion import Diffusion

        key = base, self._device if device == "auto" else device, dtype
        if self._key != key:
            self._key = self.model = None
            free_memory()
            self.model = Diffusion.load(*key)
            self._key = key
        return self.model

    def glance(self, base: str) -> "Diffusion":
        """The base as it happens to be loaded, whatever the device and dtype."""
        return self.model if base == self.base else self.get(base)

    @property
    def base(self) -> str | None:
        return self._key and self._key[0]

    def judge(self, base: str) -> "EmbeddedJudge":
        """Raises CrceError for a base without one."""
        from crce.judge import EmbeddedJudge

        if base not in self._judges:
            self._judges[base] = EmbeddedJudge.load(base)
        return self._judges[base]


def free_memory() -> None:
    """Gives back what a model or a failed step still holds on the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def execute(run: Run, models: Models | None = None, evaluation: dict | None = None) -> Iterator[dict]:
    """Does what the run lacks and yields its events; between two of them the caller may use the models.

    evaluation: asks for one (see `Run.request_evaluate`) in a way that no worker takes it up before us.
    The last event is done, stopped or failed. Left earlier (closed, killed), the run is interrupted and goes on
    from its checkpoint next time. Raises Busy if the run is being worked on, CrceError if it cannot be written.
    """
    with run.held():
        began = time.monotonic()
        try:
            yield run.record("start", pid=os.getpid())
            run.clear("resume")
            if evaluation:
                files.write_json(run.dir / "evaluate.json", evaluation)
            for event in _work(run, models or Models()):
                yield event
                _obey(run)
            ending = "done", {"seconds": round(time.monotonic() - began, 1)}
        except Stopped:
            ending = "stopped", {"step": run.kept_step}
        except Exception as error:
            ending = "failed", explained(error, run)
        yield _end(run, *ending)


def _end(run: Run, kind: str, facts: dict) -> dict:
    try:
        run.clear("stop")
        return run.record(kind, **facts)
    except OSError:
        # A full disk takes no event either. Unrecorded, the run counts as interrupted: it can go on later.
        return {"time": time.time(), "kind": kind, **facts}


def _obey(run: Run) -> None:
    if run.stopping:
        raise Stopped


def _work(run: Run, models: Models) -> Iterator[dict]:
    job = run.job
    model = models.get(job.base, job.device, job.dtype)
    if not run.erased:
        yield from _train(run, model)
    # Not before the delta is there.
    (run.dir / "checkpoint.safetensors").unlink(missing_ok=True)
    while request := run.evaluation:
        yield from _evaluate(run, model, models.judge(job.base), **request)
        # Another request may have come meanwhile.
        if run.evaluation == request:
            run.clear("evaluate.json")


def _train(run: Run, model: "Diffusion") -> Iterator[dict]:
    from crce.erase import erase
    from crce.preflight import estimate, forget_peak

    config, checkpoint = run.job.config, run.dir / "checkpoint.safetensors"
    check_room(run, model, disk_usage(run.dir).free)
    first = not checkpoint.exists()
    if first:
        yield run.record("estimate", **asdict(estimate(model, run.job.specs, config)))
    if first and config.preview_every:
        yield _preview(run, model)
    forget_peak(model)
    bank, train = Meter(run), Meter(run, run.kept_step)
    for step in erase(model, run.job.specs, config, checkpoint=checkpoint, resume=True):
        if step.phase == "bank":
            yield bank.event("phase", step.number, step.of, phase="bank")
        else:
            yield from _trained(run, model, step, train)
        bank.restart()
        train.restart()
    if first:
        yield _cost(run, model, bank.seconds + train.seconds)


def _cost(run: Run, model: "Diffusion", seconds: float) -> dict:
    """What a training that was not interrupted really took, to be read beside the estimate."""
    from crce.preflight import peak

    memory, whose = peak(model)
    return run.record("cost", seconds=round(seconds, 1), memory=memory, whose=whose, disk=run.size)


def _trained(run: Run, model: "Diffusion", step: "Step", meter: "Meter") -> Iterator[dict]:
    """Keeps what a training step brought: the delta before anything else, for a kill may come at any time."""
    config, last = run.job.config, step.number == step.of
    if last:
        step.delta.save(run.delta_path)
    event = meter.event("step", step.number, step.of, losses=step.losses)
    if last or step.number % config.checkpoint_every == 0:
        yield run.record("checkpoint", step=step.number)
    yield event
    if config.preview_every and (last or step.number % config.preview_every == 0):
        yield _preview(run, model, step)


def check_room(run: Run, model: "Diffusion", free: int) -> None:
    """Raises CrceError if the disk would be full before the run ends."""
    from crce.preflight import disk

    needed = disk(model, run.job.specs, run.job.config)
    if free < needed:
        raise CrceError(
            f"The disk of {run.dir} has {free >> 20} MB free and this run needs {needed >> 20} MB. "
            "Free some space and resume, or start a run in another folder (--out, or CRCE_HOME)."
        )


class Meter:
    """Progress of one phase: the time taken and left, and no more lines in events.jsonl than a person can follow."""

    def __init__(self, run: Run, done: int = 0):
        self._run, self._written, self.done, self.seconds = run, 0.0, done, 0.0
        self._each = deque(maxlen=20)
        self.restart()

    def restart(self) -> None:
        """What came between two steps (a preview, a glance) is not counted as theirs."""
        self._began = time.monotonic()

    def event(self, kind: str, done: int, of: int, **facts) -> dict:
        """The event, written to the run if it is the last one or the one before is old enough."""
        now, more = time.monotonic(), done - self.done
        self.seconds += now - self._began
        if more > 0:
            self._each.append((now - self._began) / more)
        self.done, self._began = done, now
        # The median: one slow step does not move it.
        left = round(median(self._each) * (of - done), 1) if self._each else None
        facts |= {"step" if kind == "step" else "done": done, "of": of, "seconds_left": left}
        ended = done == of and more > 0
        if not ended and now - self._written < WRITE_EVERY:
            return {"time": time.time(), "kind": kind, **facts}
        self._written = now
        return self._run.record(kind, **facts)


def _preview(run: Run, model: "Diffusion", step: "Step | None" = None) -> dict:
    """The target, a coref and a retain, always of the same seed, with the weights as they are now."""
    spec, number = run.job.spec, step.number if step else 0
    terms = [*spec.train_corefs[:1], *spec.train_retains[:1]]
    prompts = [spec.target, *(term.text for term in terms)]
    seeds = [0] * len(prompts)
    with step.delta.applied(model) if step else nullcontext():
        pictures = model.generate(prompts, seeds)
    names = [f"images/preview-{number:05d}-{i}.png" for i in range(len(prompts))]
    _save_pictures(run, dict(zip(names, pictures, strict=True)))
    return run.record("preview", step=number, prompts=prompts, seeds=seeds, images=names)


def _save_pictures(run: Run, pictures: "dict[str, Image]") -> None:
    for name, picture in pictures.items():
        (run.dir / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(run.dir / name)


def _evaluate(run: Run, model: "Diffusion", judge: "EmbeddedJudge", images: int, ask: str) -> Iterator[dict]:
    """Writes report.json, and pictures of each term's first seeds, before and after."""
    from crce.delta import Delta
    from crce.evaluate import evaluate
    from crce.report import summarise

    job, began = run.job, time.monotonic()
    delta = Delta.load(run.delta_path)
    judged = []
    for spec in job.specs:
        judged.append((yield from _judged(Meter(run), evaluate(model, judge, spec, delta, images, ask))))
    yield from _shown(run, model, delta, judged[0])
    facts = {
        "base": job.base,
        "method": job.config.method,
        "config": asdict(job.config),
        "images": images,
        "ask": ask,
        "judge": "embedded",
        "seconds": round(time.monotonic() - began, 1),
    }
    report, *also = (
        summarise(spec, answers, {"spec": spec_to_dict(spec), **facts})
        for spec, answers in zip(job.specs, judged, strict=True)
    )
    files.write_json(run.dir / "report.json", {**report, "also": also} if also else report)
    yield run.record("evaluated")


def _shown(run: Run, model: "Diffusion", delta: "Delta", answers: "list[Answers]") -> Iterator[dict]:
    """Draws what a report shows of the first concept."""
    meter, numbered, done = Meter(run), list(enumerate(answers)), 0
    while part := numbered[done : done + SHOWN_TERMS]:
        _save_pictures(run, _pairs(model, delta, part))
        done += len(part)
        yield meter.event("phase", done, len(answers), phase="pictures")


def _judged(meter: "Meter", steps: "Generator[tuple[int, int], None, list[Answers]]") -> Generator:
    """Yields an event for each (done, of) and returns what `steps` returns."""
    while True:
        try:
            done, of = next(steps)
        except StopIteration as end:
            return end.value
        yield meter.event("phase", done, of, phase="evaluate")


def _pairs(model: "Diffusion", delta: "Delta", answers: "list[tuple[int, Answers]]") -> "dict[str, Image]":
    """The first seeds of these terms, drawn by the base and by the erased model."""
    shown = [(number, a, seed) for number, a in answers for seed in a.seeds[:SHOWN_SEEDS]]
    pictures = {}
    for prefix, how in (("base-", nullcontext()), ("", delta.applied(model))):
        with how:
            drawn = model.generate([a.text for _, a, _ in shown], [seed for _, _, seed in shown])
        names = [picture_name(a.kind, number, seed, prefix) for number, a, seed in shown]
        pictures |= dict(zip(names, drawn, strict=True))
    return pictures


def picture_name(kind: str, number: int, seed: int, prefix: str = "") -> str:
    """Where a report's picture lies in the run: `number` is the term's place in the report."""
    return f"images/eval/{prefix}{kind}-{number}-{seed}.png"


def explained(error: Exception, run: Run) -> dict:
    """What a person reads of a failure, and under which id worker.log has the rest."""
    kept = "The erasure is done and kept" if run.erased else f"Step {run.kept_step} is kept"
    if isinstance(error, CrceError):
        message = f"{kept}, but not measured: {error}" if run.erased else str(error)
        return {"message": message, "log_id": None}
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        reason = f"{run.dir} cannot be written: {error.strerror}."
        return {"message": f"{reason} {kept}. {UNWRITABLE[error.errno]}", "log_id": None}
    if _out_of_memory(error):
        return {"message": f"Out of memory. {kept}. {SMALLER}", "log_id": None}
    log_id = log_error(error)
    return {"message": f"unexpected error {log_id}; {files.home() / 'worker.log'} has the rest", "log_id": log_id}


def _out_of_memory(error: Exception) -> bool:
    import torch

    # On the CPU torch has no error of its own for it.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def log_error(error: Exception) -> str:
    """Appends the trace to worker.log under an id, which it returns."""
    log_id = secrets.token_hex(4)
    files.home().mkdir(parents=True, exist_ok=True)
    trace = SECRET.sub(r"\1…", "".join(traceback.format_exception(error)))
    with suppress(OSError), open(files.home() / "worker.log", "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%F %T')} unexpected error {log_id}\n{trace}\n")
    return log_id


def ensure_worker() -> None:
    """Starts a worker that outlives us, unless there is one. Waits for nothing: a second one leaves by itself."""
    files.home().mkdir(parents=True, exist_ok=True)
    if any(locked(path) for path in files.home().glob("worker-*.lock")):
        return
    # It stands in our home, not in a folder of the user's. A checkout need not be installed, so it is on the path.
    paths = [str(files.ROOT)] * (files.DATA == files.ROOT) + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    changed = {"CRCE_HOME": str(files.home().resolve()), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with open(files.home() / "worker.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "crce", "worker"],
            cwd=files.home(),
            env={**os.environ, **changed},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
