"""The worker: the process that has the model. It works on queued runs, and answers requests between their steps."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from crce import devices, files, runs
from crce.errors import CrceError
from crce.judges.choices import AUTO
from crce.runs import Busy, Run
from crce.runs.execute import execute
from crce.runs.failures import describe_logged, log_error
from crce.runs.models import Models
from crce.worker.answers import ErrorAnswer, ReplacedAnswer, StatusAnswer
from crce.worker.broker import Answer, PendingRequest, RequestBroker
from crce.worker.client import address_file, lock_file
from crce.worker.requests import EstimateRequest, ModelRequest

if TYPE_CHECKING:
    from crce.judges.judge import Judge
    from crce.models.diffusion import Diffusion

_NICE = 5  # the page answers clicks first; an idle machine still gives all it has
IDLE_SECONDS = 15 * 60
POLL_SECONDS = 0.5  # between two looks at the queue of runs


class Worker:
    """One per device (`devices.worker_of`). No request and no run ends it; long idleness and SIGTERM do."""

    def __init__(self, device: str):
        self._device, self._name = device, devices.worker_of(device)
        self._status = StatusAnswer("starting")
        self._models = Models(device)
        self._broker = RequestBroker(self._get_status)
        self._run: Run | None = None
        self._leaving = False
        self._unwritable: set[str] = set()
        self._look_again = 0.0

    def serve(self) -> None:
        _yield_to_pages()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        # Before torch is imported, so that a tab learns that there is a worker. Tabs talk to that of the first device.
        if self._name == devices.AUTO:
            self._broker.open()
        try:
            self._work_until_idle()
        finally:
            self._broker.close()

    def _leave(self, *_: object) -> None:
        self._leaving = True

    def _work_until_idle(self) -> None:
        from crce.models.diffusion import pick_device
        from crce.worker import handlers

        self._status = StatusAnswer(pick_device(self._device))
        handlers.tidy()
        busy = time.monotonic()
        while not self._leaving and time.monotonic() - busy < IDLE_SECONDS:
            if self._answer_next(timeout=POLL_SECONDS) or self._work_on_next():
                busy = time.monotonic()

    def _get_status(self) -> StatusAnswer:
        """Called from other threads at any time, so it only reads what is known already."""
        run = self._run
        return replace(self._status, base=self._models.base, run=run.id if run else None, pid=os.getpid())

    def _work_on_next(self) -> bool:
        """Works on the oldest queued run for this device. False if there is none."""
        self._run = run = self._find_next()
        if run:
            self._execute(run)
        self._run = None
        return bool(run)

    def _find_next(self) -> Run | None:
        began = time.monotonic()
        if began < self._look_again:
            return None
        for run in reversed(runs.all_runs()):
            with suppress(CrceError):  # one that is being deleted
                if run.state == "queued" and self._accepts(run):
                    return run
        ended = time.monotonic()
        # An idle worker spends at most a tenth of its time on a store of many runs.
        self._look_again = ended + 9 * (ended - began)
        return None

    def _accepts(self, run: Run) -> bool:
        wanted = run.job.device
        # The CPU beside a card is for the runs that name it.
        mine = self._name != devices.CPU if wanted == devices.AUTO else devices.worker_of(wanted) == self._name
        return mine and run.id not in self._unwritable

    def _execute(self, run: Run) -> None:
        before = run.history.counts
        try:
            events = execute(run, self._models)
            for _ in events:
                # Each waiting request is served at most once, so that training is not starved.
                for _ in range(max(1, self._broker.waiting())):
                    self._answer_next()
                if self._leaving:
                    events.close()
        except Busy:
            return
        except CrceError as error:
            print(error, flush=True)
        if run.history.counts == before:
            # Not even its failure could be written: it would be taken up again and again.
            self._unwritable.add(run.id)
        # The run has loaded torch already, so this import is quick.
        from crce.models.memory import free_memory

        free_memory()

    def _answer_next(self, timeout: float = 0) -> bool:
        """Answers the request that has waited longest. False if there is none."""
        if self._name == devices.AUTO:
            self._broker.publish()
        pending = self._broker.take(timeout)
        if pending:
            answer = self._answer(pending)
            if answer is None:
                self._broker.put_back(pending)
            else:
                pending.reply(answer)
        return bool(pending)

    def _answer(self, pending: PendingRequest) -> Answer | None:
        """An answer whatever goes wrong; None where only a part of the work is done."""
        from crce.worker import handlers

        request = pending.request
        try:
            model, judge = self._get_model(request), self._get_judge(request)
            return handlers.HANDLERS[request.kind](request, model, judge, lambda: pending.replaced)
        except handlers.Unfinished:
            return None
        except handlers.Replaced:
            return ReplacedAnswer()
        except CrceError as error:
            return ErrorAnswer(str(error))
        except Exception as error:
            return ErrorAnswer(self._explain(error))
        finally:
            # A run that trains between two requests needs the device's memory.
            if self._run:
                self._models.rest_judge()

    def _explain(self, error: Exception) -> str:
        from crce.models.memory import free_memory, is_out_of_memory

        if not is_out_of_memory(error):
            return describe_logged(log_error(error))
        free_memory()
        return "The device is out of memory, even for one picture at a time. Free memory on it and ask again."

    def _get_model(self, request: ModelRequest[Any]) -> "Diffusion":
        """Raises CrceError while a run needs another base: two may not fit."""
        base = request.base
        if self._run and base != self._models.base:
            raise CrceError(f"The worker is busy with a run on {self._models.base}; pictures of {base} come after it.")
        if isinstance(request, EstimateRequest) and not self._run:
            return self._models.get(base, dtype=request.dtype)
        return self._models.get_loaded(base)

    def _get_judge(self, request: ModelRequest[Any]) -> "Judge | None":
        """None where none is needed, and where none was named and the base has none. Raises CrceError for one that was
        named and cannot be used."""
        if not request.needs_judge:
            return None
        try:
            return self._models.judge(request.base, request.needs_judge)
        except CrceError:
            if request.needs_judge != AUTO:
                raise
            return None


def serve(device: str = "auto") -> bool:
    """Works until idle for 15 minutes. False at once if another process is the worker of this device.

    Raises CrceError for a device that is not there.
    """
    files.home().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_file(device)).acquire(blocking=False):
            # It may be there from a worker that was killed.
            if devices.worker_of(device) == devices.AUTO:
                address_file().unlink(missing_ok=True)
            runs.tidy()
            Worker(device).serve()
        return True
    except Timeout:
        return False


def _yield_to_pages() -> None:
    """Linux may schedule by session: there the session yields, which is the worker's own."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE))
