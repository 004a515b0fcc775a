"""The process that has the model: works on queued runs, and answers glances between two of their steps."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from crce import files, runs
from crce.errors import CrceError
from crce.runs import Busy, Run
from crce.runs.execute import execute
from crce.runs.failures import log_error
from crce.runs.models import Models
from crce.worker.broker import PendingRequest, RequestBroker
from crce.worker.requests import Request

if TYPE_CHECKING:
    from crce.judges.embedded import EmbeddedJudge
    from crce.models.diffusion import Diffusion

IDLE_SECONDS = 15 * 60
LOOK_EVERY = 0.5  # seconds between two looks at the queue


class Worker:
    """One per device. Never ends because of what it is asked; ends when idle for long, or on SIGTERM."""

    def __init__(self, device: str):
        self._device = device
        self._shown = "starting"
        self._models = Models(device)
        self._desk = RequestBroker(self._status)
        self._run: Run | None = None
        self._leaving = False
        self._unwritable: set[str] = set()

    def serve(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        # Before torch is imported, so that a tab learns that there is a worker.
        self._desk.open()
        try:
            self._until_idle()
        finally:
            self._desk.close()

    def _leave(self, *_) -> None:
        self._leaving = True

    def _until_idle(self) -> None:
        from crce.models.diffusion import pick_device
        from crce.worker import handlers

        self._shown = pick_device(self._device)
        handlers.tidy()
        busy = time.monotonic()
        while not self._leaving and time.monotonic() - busy < IDLE_SECONDS:
            if self._answer(timeout=LOOK_EVERY) or self._work():
                busy = time.monotonic()

    def _status(self) -> dict:
        """Asked from other threads at any time, so it says only what is known already."""
        run = self._run
        return {"device": self._shown, "base": self._models.base, "run": run.id if run else None, "pid": os.getpid()}

    def _work(self) -> bool:
        """Works on the oldest queued run for this device. False if there is none."""
        self._run = self._next()
        if self._run:
            self._execute(self._run)
        worked, self._run = bool(self._run), None
        return worked

    def _next(self) -> Run | None:
        for run in reversed(runs.all_runs()):
            with suppress(CrceError):  # one that is being deleted
                if run.state == "queued" and self._takes(run):
                    return run
        return None

    def _takes(self, run: Run) -> bool:
        mine = self._device == "auto" or run.job.device in ("auto", self._device)
        return mine and run.id not in self._unwritable

    def _execute(self, run: Run) -> None:
        before = len(run.events())
        try:
            events = execute(run, self._models)
            for _ in events:
                # Each at most once: the run goes on also beside one with much to do.
                for _ in range(max(1, self._desk.waiting())):
                    self._answer()
                if self._leaving:
                    events.close()
        except Busy:
            return
        except CrceError as error:
            print(error, flush=True)
        if len(run.events()) == before:
            # Not even its failure could be written: it would be taken up again and again.
            self._unwritable.add(run.id)
        # Torch is loaded by now: the run needed it.
        from crce.models.memory import free_memory

        free_memory()

    def _answer(self, timeout: float = 0) -> bool:
        """Answers the glance that waits longest. False if none does."""
        self._desk.publish()
        glance = self._desk.take(timeout)
        if glance:
            answer = self._answered(glance)
            if answer:
                glance.reply(answer)
            else:
                self._desk.put_back(glance)
        return bool(glance)

    def _answered(self, glance: PendingRequest) -> dict | None:
        """Whatever is asked, and whatever goes wrong with it, there is an answer; None where more is to be done."""
        from crce.worker import handlers

        asked = glance.asked
        try:
            model = self._model(asked.base)
            return handlers.HANDLERS[asked.kind](asked, model, self._judge(asked), lambda: glance.replaced)
        except handlers.Unfinished:
            return None
        except handlers.Replaced:
            return {"replaced": True}
        except CrceError as error:
            return {"error": str(error)}
        except Exception as error:
            return {"error": f"unexpected error {log_error(error)}; {files.home() / 'worker.log'} has the rest"}

    def _model(self, base: str) -> "Diffusion":
        """Raises CrceError while a run needs another base: two may not fit."""
        if self._run and base != self._models.base:
            raise CrceError(f"The worker is busy with a run on {self._models.base}; pictures of {base} come after it.")
        return self._models.glance(base)

    def _judge(self, asked: Request) -> "EmbeddedJudge | None":
        """None where none is needed, or the base has none."""
        with suppress(CrceError):
            return self._models.judge(asked.base) if asked.judged else None


def serve(device: str = "auto") -> bool:
    """Works until idle for long. False if another process is the worker of this device."""
    files.home().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_file(device)).acquire(blocking=False):
            # The address of a worker that was killed.
            (files.home() / "worker.json").unlink(missing_ok=True)
            Worker(device).serve()
        return True
    except Timeout:
        return False


def lock_file(device: str) -> Path:
    return files.home() / f"worker-{device.replace(':', '-')}.lock"
