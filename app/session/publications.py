"""What this person published last, on disk: a push goes on when its page is closed, and tells how it ended."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from crce import files
from crce.errors import CrceError
from crce.publishing.hub import Published
from crce.records import parse

_sending: set[Path] = set()  # the records of the pushes of this process


@dataclass(frozen=True)
class Push:
    """what: for people. repo: where to. began: seconds since 1970. url: of the result; message: why there is none.

    state "sending" with the id of another process is one that ended with that process.
    """

    what: str
    repo: str
    state: Literal["sending", "done", "failed"]
    pid: int
    began: float
    url: str = ""
    message: str = ""

    @property
    def interrupted(self) -> bool:
        return self.state == "sending" and _path() not in _sending


def last() -> Push | None:
    """None where nothing was published yet, or the record cannot be read."""
    try:
        return parse(Push, files.read_json(_path()), "The last publication")
    except (OSError, ValueError, CrceError):
        return None


def record(what: str, repo: str, send: Callable[[], Published]) -> Published:
    """Sends, and keeps how it goes on disk. Raises CrceError if the person's last push is still under way, and what
    `send` raises."""
    path, push = _path(), Push(what, repo, "sending", os.getpid(), time.time())
    if path in _sending:
        raise CrceError("Your last publication is still being sent. Wait until it is done.")
    _sending.add(path)
    try:
        files.write_json(path, asdict(push))
        done = send()
        files.write_json(path, asdict(replace(push, state="done", url=done.url)))
        return done
    except BaseException as error:
        told = str(error) if isinstance(error, CrceError) else f"Unexpected error ({type(error).__name__})."
        files.write_json(path, asdict(replace(push, state="failed", message=told)))
        raise
    finally:
        _sending.discard(path)


def _path() -> Path:
    return files.desk() / "published.json"
