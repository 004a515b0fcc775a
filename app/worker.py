"""Requests from a tab to the worker."""

import gradio as gr

from crce.worker import client
from crce.worker.requests import A, ModelRequest

_TIMEOUT = 600  # seconds


def tab_id(http: gr.Request, part: str) -> str:
    """Names a part of an open page to the worker, which answers only the newest request of each."""
    return f"{http.session_hash}-{part}"


def ask_worker(request: ModelRequest[A], timeout: float = _TIMEOUT) -> A | None:
    """The worker's answer; None if a newer request of the same tab and kind replaced this one. Raises CrceError."""
    return client.send(request, timeout=timeout)
