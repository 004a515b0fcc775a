"""How a page waits for the worker: without a thread of those that answer clicks, and only for its newest question.

A handler is a generator. Besides what the page shows it yields what it waits for: a `Pause`, or a `WorkerRequest`,
whose answer it is sent. Between two of them it runs in a thread; while it waits it has none.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import gradio as gr

from app.session.question import Question, is_open
from crce.environment import on_zero_gpu
from crce.errors import CrceError
from crce.runs import Run
from crce.worker import client
from crce.worker.client import ensure_workers
from crce.worker.requests import ModelRequest

_TIMEOUT = 600  # seconds
_AT_ONCE = 32  # requests that wait at the worker; fewer than the connections that it accepts
_turns: dict[tuple[str, str], "_Turn"] = {}
_END = object()
_Resume = Callable[[Generator[Any, Any, None]], Any]
_queue: "SimpleQueue[tuple[Future[Any], WorkerRequest, float]]" = SimpleQueue()
_threads: list[Thread] = []


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class WorkerRequest:
    """question: what was open when it was asked; an answer that comes when something else is open is dropped."""

    request: ModelRequest[Any]
    question: Question | None = None
    timeout: float = _TIMEOUT


class _Turn:
    """One call of a handler on a page. asked: what it waits for, or waited for last."""

    def __init__(self) -> None:
        self.asked: Future[Any] | None = None

    def end(self) -> None:
        """Takes its question back, if it has no thread yet. Else the worker drops it for a newer one."""
        if self.asked:
            self.asked.cancel()


def tab_id(http: gr.Request, part: str) -> str:
    """Names a part of an open page to the worker, which answers only the newest request of each."""
    return f"{http.session_hash}-{part}"


def waiting(handler: Callable[..., Generator[Any, Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    """A handler that waits for the worker, as described above. A newer call of it on the same page ends an older one.

    One of its arguments is the `gr.Request`. A call that shows nothing leaves the page as it is.
    """

    @functools.wraps(handler)
    async def run(*args: Any, **values: Any) -> AsyncIterator[Any]:
        (http,) = (value for value in args if isinstance(value, gr.Request))
        line, turn = (str(http.session_hash), handler.__qualname__), _Turn()
        if older := _turns.get(line):
            older.end()
        _turns[line] = turn
        generator, begin = handler(*args, **values), functools.partial(_advance, None)
        resume: _Resume = begin
        try:
            while (item := await asyncio.to_thread(resume, generator)) is not _END:
                resume = begin
                if isinstance(item, Pause):
                    await asyncio.sleep(item.seconds)
                elif isinstance(item, WorkerRequest):
                    resume = await _ask(item, turn)
                else:
                    yield item
                if _turns.get(line) is not turn or (isinstance(item, WorkerRequest) and not _fits(item)):
                    break
        except asyncio.CancelledError:
            if _turns.get(line) is turn:  # else a newer call took the question back
                raise
        finally:
            if _turns.get(line) is turn:
                turn.end()
                del _turns[line]
            with suppress(ValueError):  # it still runs, in a thread whose result nobody awaits
                generator.close()
        # When a generator ends, Gradio sends its last output again, or where there was none, nothing in its place.
        yield gr.skip()

    return run


def _advance(answer: Any, generator: Generator[Any, Any, None]) -> Any:
    # A StopIteration cannot leave a thread.
    try:
        return generator.send(answer)
    except StopIteration:
        return _END


def _fail(error: CrceError, generator: Generator[Any, Any, None]) -> Any:
    try:
        return generator.throw(error)
    except StopIteration:
        return _END


def _submit(wanted: WorkerRequest) -> "Future[Any]":
    """Its answer, from the next free thread. Those of `concurrent.futures` would hold up the end of the program."""
    future: Future[Any] = Future()
    _queue.put((future, wanted, time.monotonic() + wanted.timeout))
    if len(_threads) < _AT_ONCE:
        _threads.append(Thread(target=_serve, name="waiting", daemon=True))
        _threads[-1].start()
    return future


def _serve() -> None:
    while True:
        future, wanted, until = _queue.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(client.send(wanted.request, until - time.monotonic()))
            except BaseException as error:
                future.set_exception(error)


async def _ask(wanted: WorkerRequest, turn: _Turn) -> _Resume:
    """How the handler goes on, with the answer or the error."""
    turn.asked = _submit(wanted)
    try:
        answer = await asyncio.wait_for(asyncio.wrap_future(turn.asked), wanted.timeout + 1)
        return functools.partial(_advance, answer)
    except TimeoutError:
        return functools.partial(_fail, CrceError("The worker does not answer: too many wait for it. Try again."))
    except CrceError as error:
        return functools.partial(_fail, error)


def _fits(wanted: WorkerRequest) -> bool:
    return wanted.question is None or is_open(wanted.question)


def start_work(run: Run) -> None:
    """Lets a queued run begin: in a worker, or where no process may keep a GPU, now and here."""
    if not on_zero_gpu():
        return ensure_workers()
    from crce.zerogpu import execute_run

    execute_run(str(run.dir))
