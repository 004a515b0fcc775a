"""Requests from a tab to the worker."""

import gradio as gr

from crce.environment import on_zero_gpu
from crce.runs import Run
from crce.worker import client
from crce.worker.client import ensure_workers
from crce.worker.requests import A, ModelRequest

_TIMEOUT = 600  # seconds


def tab_id(http: gr.Request, part: str) -> str:
    """Names a part of an open page to the worker, which answers only the newest request of each."""
    return f"{http.session_hash}-{part}"


def start_work(run: Run) -> None:
    """Lets a queued run begin: in a worker, or where no process may keep a GPU, now and here."""
    if not on_zero_gpu():
        return ensure_workers()
    from crce.zerogpu import execute_run

    execute_run(str(run.dir))


def ask_worker(request: ModelRequest[A], timeout: float = _TIMEOUT) -> A | None:
    """The worker's answer; None if a newer request of the same tab and kind replaced this one. Raises CrceError."""
    return client.send(request, timeout=timeout)
