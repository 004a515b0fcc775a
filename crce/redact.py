"""What must never leave the process: the values of keys, tokens and passwords that the environment gives.

Every way out asks here: errors, text files, both output streams, pages and what is published. The values themselves are
looked for, not a pattern: a key of any server looks as it likes.
"""

import base64
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TextIO, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
AUTH = "CRCE_AUTH"  # name:password, one or several with commas between them
PROXIES = tuple(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower()))
URLS = ("OPENAI_BASE_URL", "HF_ENDPOINT", *PROXIES)
HIDDEN = "•••"
SHORTEST = 8  # characters of a secret; a shorter value is a placeholder such as "none", or a word of any text

V = TypeVar("V")
_told: set[str] = set()


def hide(value: str) -> str:
    """Remembers a secret that is not in the environment, such as a stored token. Returns it."""
    _told.add(value)
    return value


def redact(value: V) -> V:
    """The value without secrets: a text, or JSON with texts at any depth."""
    if isinstance(value, str):
        return cast(V, _redact_text(value))
    if isinstance(value, dict):
        return cast(V, {redact(key): redact(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return cast(V, type(value)(redact(item) for item in value))
    return value


def redact_growing(text: str) -> str:
    """A text that is still being written: without the beginning of a secret at its end too."""
    # Before the whole ones are hidden: one secret may be the beginning of another.
    begun = max((_count_begun(text, secret) for secret in _list_secrets()), default=0)
    return redact(text[: len(text) - begun])


def _count_begun(text: str, secret: str) -> int:
    """How many characters at the text's end are the beginning of the secret, or all of it; fewer than 4 are none."""
    return next((size for size in range(len(secret), 3, -1) if text.endswith(secret[:size])), 0)


def public_url(url: str) -> str:
    """The address without user name and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def guard_output() -> None:
    """From here on, nothing secret is printed or logged, nor shown in a trace."""
    sys.stdout, sys.stderr = cast(TextIO, _Guarded(sys.stdout)), cast(TextIO, _Guarded(sys.stderr))


class _Guarded:
    """A stream that hides secrets in what is written."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _redact_text(text: str) -> str:
    if len(text) < SHORTEST:  # a page has thousands of these
        return text
    for secret in _list_secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _list_secrets() -> tuple[str, ...]:
    """The longest first: one may be a part of another."""
    # A page has thousands of values, and the environment hardly changes.
    return _find_secrets(frozenset(_told), tuple(os.environ.get(name, "") for name in (*KEYS, AUTH, *URLS)))


@lru_cache(maxsize=4)
def _find_secrets(told: frozenset[str], given: tuple[str, ...]) -> tuple[str, ...]:
    found = {value.strip() for value in (*told, *_read_values(dict(zip((*KEYS, AUTH, *URLS), given, strict=True))))}
    forms = {form for value in found if len(value) >= SHORTEST for form in (value, quote(value, safe=""))}
    return tuple(sorted(forms, key=len, reverse=True))


def _read_values(environment: dict[str, str]) -> Iterator[str]:
    yield from (environment[name] for name in KEYS)
    yield from (pair.partition(":")[2] for pair in environment[AUTH].split(","))
    for name in URLS:
        user = environment[name].partition("://")[2].partition("/")[0].rpartition("@")[0]
        yield from (user, unquote(user), user.partition(":")[2], unquote(user.partition(":")[2]))
        yield base64.b64encode(unquote(user).encode()).decode()  # as it is sent
