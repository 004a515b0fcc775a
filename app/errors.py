"""How errors reach the user."""

import functools
import html
import inspect
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from crce.errors import CrceError

_SECONDS = 20  # that an error stays on screen
# As part of a sentence, in brackets, and as a sentence of its own.
_COMMANDS = (
    r",? or (?:with )?`(?:python -m )?crce [^`]*`",
    r" \((?:--[a-z][^)]*)\)",
    r"(?:(?<=[.!?] )|^)[^.!?`]*(?:`(?:python -m )?crce [^`]*`|\B--[a-z][a-z-]+)[^.!?]*[.!?](?: |$)",
)
log = logging.getLogger("crce.app")


def report_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Shows a CrceError as it is. Any other error goes to the log, under an id that the message names."""

    @functools.wraps(handler)
    def plain(*args: Any, **values: Any) -> Any:
        with _raise_as_toast():
            return handler(*args, **values)

    @functools.wraps(handler)
    def streaming(*args: Any, **values: Any) -> Any:
        with _raise_as_toast():
            yield from handler(*args, **values)

    return streaming if inspect.isgeneratorfunction(handler) else plain


def in_page_words(text: str) -> str:
    """An error without what only the command line has: its options and commands mean nothing on the page."""
    for pattern in _COMMANDS:
        text = re.sub(pattern, "", text)
    return text.strip()


@contextmanager
def _raise_as_toast() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except CrceError as error:
        # Toasts render HTML, and a message may quote text from an LLM or a visitor.
        raise _toast(html.escape(in_page_words(str(error)), quote=False)) from None
    except Exception:
        log_id = uuid.uuid4().hex[:8]
        log.exception("unexpected error %s", log_id)
        raise _toast(f"Unexpected error {log_id}. Your input is kept; search the log for this id.") from None


def _toast(message: str) -> gr.Error:
    return gr.Error(message, duration=_SECONDS, title="That did not work", print_exception=False)
