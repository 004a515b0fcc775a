"""How errors reach the person at the screen."""

import functools
import html
import inspect
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from crce.errors import CrceError

_SECONDS = 20  # that an error stays on screen
log = logging.getLogger("crce.app")


def report_errors(handler: Callable) -> Callable:
    """Lets a CrceError appear as it is; anything else goes to the log, under an id that the message names."""

    @functools.wraps(handler)
    def plain(*args):
        with _spoken():
            return handler(*args)

    @functools.wraps(handler)
    def streaming(*args):
        with _spoken():
            yield from handler(*args)

    return streaming if inspect.isgeneratorfunction(handler) else plain


@contextmanager
def _spoken() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except CrceError as error:
        # Toasts render HTML, and a message may quote what an LLM or a visitor wrote.
        raise _toast(html.escape(str(error), quote=False)) from None
    except Exception:
        log_id = uuid.uuid4().hex[:8]
        log.exception("unexpected error %s", log_id)
        message = f"Unexpected error {log_id}. What you typed is kept; the log has the details under this id."
        raise _toast(message) from None


def _toast(message: str) -> gr.Error:
    return gr.Error(message, duration=_SECONDS, title="That did not work", print_exception=False)
