"""What open pages ask again and again: whether there is anything new. One small answer, made once for all of them.

What a part of the page shows has a source. It is given the runs, newest first, and what it returns differs when there
is something new. The part's pulse (`components.pulse`) then lets it be read anew, if it can be seen.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from crce import runs
from crce.errors import CrceError
from crce.runs import Run

Source = Callable[[list[Run]], object]
_FRESH = 1.0  # seconds for which an answer is not made anew, at least
_SHARE = 10  # and as many times what making it took: the news of a large store take a tenth of a core
_BEAT = 2.0  # seconds after which what passes with time counts as new


class News:
    """A mark for each source. One page at a time waits for them to be made; the others get those that are there."""

    def __init__(self, sources: Mapping[str, Source]):
        self._sources, self._making = sources, Lock()
        self._marks: dict[str, str] = {}
        self._until = 0.0

    def read(self) -> dict[str, str]:
        if time.monotonic() > self._until and self._making.acquire(blocking=False):
            try:
                self._make()
            finally:
                self._making.release()
        return self._marks

    def _make(self) -> None:
        began, found = time.monotonic(), runs.all_runs()
        self._marks = {name: _mark(source, found) for name, source in self._sources.items()}
        ended = time.monotonic()
        self._until = ended + max(_FRESH, _SHARE * (ended - began))


def _mark(source: Source, found: list[Run]) -> str:
    """Errors are news too: the part of the page tells them."""
    try:
        seen = repr(source(found))
    except CrceError as error:
        seen = str(error)
    return hashlib.sha256(seen.encode()).hexdigest()[:12]


def build_route(sources: Mapping[str, Source]) -> Route:
    """GET /news, for page.js. Marks tell nothing but that something changed, so they need no login."""
    news = News(sources)

    def answer(_: Request) -> JSONResponse:
        return JSONResponse(news.read(), headers={"cache-control": "no-store"})

    return Route("/news", answer)


def follow(found: Iterable[Run]) -> list[object]:
    """A source's news of these runs. While one is worked on, the time that it still takes is always new."""
    states = [(run, run.state) for run in found]
    told: list[object] = [(run.id, state, run.history.counts, changed(run.dir)) for run, state in states]
    return [*told, beat()] if any(state == "running" for _, state in states) else told


def beat() -> float:
    return time.monotonic() // _BEAT


def changed(folder: Path) -> int:
    """Differs once a file was made or replaced there."""
    with suppress(OSError):
        return folder.stat().st_mtime_ns
    return 0
