"""How much of a server's answer we take: the one reader for language models and the Hub.

An answer is untrusted in size and time too: it may drip, never end, unpack to gigabytes, or lead to another machine.
The hooks here bound it below every library that reads it.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import httpx2

from crce.redact import public_url


@dataclass(frozen=True)
class Limits:
    """size: bytes of one answer. seconds: from its headers to its end. idle: seconds between two pieces."""

    size: int
    seconds: float
    idle: float


class Exceeded(httpx2.TransportError):
    """The answer goes beyond the limits; the text continues "the server …"."""


# Those of the calls that are made now; None leaves answers as they are, as a base model's download needs.
limits: ContextVar[Limits | None] = ContextVar("limits", default=None)


def prepare(request: httpx2.Request) -> None:
    """A request hook: asks for an answer as it is, and waits `idle` seconds for each part of it."""
    if bound := limits.get():
        request.headers["accept-encoding"] = "identity"
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), bound.idle)


def bind(response: httpx2.Response) -> None:
    """A response hook. Raises Exceeded at once, or while the answer is read."""
    if not (bound := limits.get()):
        return
    _refuse_detour(response)
    if (coding := response.headers.get("content-encoding", "identity")) != "identity":
        raise Exceeded(f"compresses its answer ({coding[:20]!r}), which was not asked for")
    response.stream = _Bounded(response.stream, bound)


async def prepare_async(request: httpx2.Request) -> None:
    prepare(request)


async def bind_async(response: httpx2.Response) -> None:
    bind(response)


class _Bounded(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The bytes of an answer up to its limits."""

    def __init__(self, stream: object, bound: Limits):
        self._stream, self._bound = stream, bound
        self._left, self._until = bound.size, time.monotonic() + bound.seconds

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._stream, httpx2.SyncByteStream)
        for piece in self._stream:
            yield self._count(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._stream, httpx2.AsyncByteStream)
        async for piece in self._stream:
            yield self._count(piece)

    def close(self) -> None:
        assert isinstance(self._stream, httpx2.SyncByteStream)
        self._stream.close()

    async def aclose(self) -> None:
        assert isinstance(self._stream, httpx2.AsyncByteStream)
        await self._stream.aclose()

    def _count(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise Exceeded(f"sends more than {self._bound.size:,} bytes")
        if time.monotonic() > self._until:
            raise Exceeded(f"does not end its answer within {self._bound.seconds:g} s")
        return piece


def _refuse_detour(response: httpx2.Response) -> None:
    """A redirect to another machine would carry what we send there, or read what is not meant for us."""
    asked = response.request.url
    if response.has_redirect_location:
        target = asked.join(response.headers["location"])
        if target.host != asked.host or (asked.scheme, target.scheme) == ("https", "http"):
            raise Exceeded(f"redirects to {public_url(str(target))[:200]!r}, which is another machine")
