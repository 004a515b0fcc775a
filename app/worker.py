"""Requests from a tab to the worker."""

from typing import Any

import gradio as gr

from crce.errors import CrceError
from crce.worker import client

_TIMEOUT = 600  # seconds


def ask_worker(kind: str, base: str, http: gr.Request, facts: dict[str, Any]) -> dict[str, Any]:
    """The worker's answer, or {"error": …} if there is none. A newer request of the same page and kind replaces it."""
    try:
        tab = f"{http.session_hash}-{kind}"
        return client.send({"kind": kind, "tab": tab, "base": base, **facts}, timeout=_TIMEOUT)
    except CrceError as error:
        return {"error": str(error)}
