"""Whose runs, drafts and talks these are, where several people reach the app.

On this machine alone there is one person, and nobody is asked. Behind a login a person is the user name; on an open
server (--insecure, and a Space), the holder of a random token that the guard keeps in the browser, or without cookies
one open page. The first account of the login is the operator's: publishing uses the operator's token, so only the
operator publishes. On a Space nobody does; there a visitor publishes with a login and a token of their own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
from gradio.context import LocalContext

from crce import files, runs
from crce.environment import on_space
from crce.errors import CrceError
from crce.runs import Run

COOKIE = "crce-visitor"
MAX_WAITING = 10  # runs of one person that wait or run
MAX_CONCEPTS = 200  # concepts of one person's own
_OWNER = "owner"


@dataclass(frozen=True)
class Sharing:
    """accounts: user names, the operator's first; none on an open server."""

    accounts: Sequence[str] = ()


_sharing: Sharing | None = None


def share(sharing: Sharing | None) -> None:
    """From here on, each person has their own. None: this machine's user alone."""
    global _sharing
    _sharing = sharing
    files.set_person(current)


def current() -> str:
    """A name for the person whose event is handled, fit for a folder; "" for this machine's user and the operator."""
    request: gr.Request | None = LocalContext.request.get(None)
    if _sharing is None or is_operator():
        return ""
    if request is None:
        return "nobody"  # the end of a request that was cancelled
    who = request.username if _sharing.accounts else request.cookies.get(COOKIE) or request.session_hash
    return hashlib.sha256(f"crce {who or ''}".encode()).hexdigest()[:20]


def is_operator() -> bool:
    """Whether this person may do what concerns everybody."""
    if _sharing is None:
        return True
    request: gr.Request | None = LocalContext.request.get(None)
    return bool(_sharing.accounts) and request is not None and request.username == _sharing.accounts[0]


def require_operator(what: str) -> None:
    if not is_operator():
        raise CrceError(f"Only the operator of this server may {what}: it uses the operator's access token.")


def find_token(what: str, login: gr.OAuthToken | None) -> str:
    """The access token to `what` with: the visitor's on a Space; elsewhere "" for that of this machine.

    Raises CrceError for those who may not.
    """
    if not on_space():
        require_operator(what)
        return ""
    if login is None:
        raise CrceError("Log in with Hugging Face at the top of this tab first. Everything else works without.")
    return login.token


def claim(run: Run) -> None:
    """Records who has started the run."""
    if owner := current():
        files.write_atomic(run.dir / _OWNER, owner)


def require_own(run: Run) -> Run:
    """The run, if this person may change it. Raises CrceError otherwise."""
    if not is_operator() and _read_owner(run) != current():
        raise CrceError(f"{run.title} belongs to another person. You can look at it, and repeat it with changes.")
    return run


def require_room() -> None:
    """Raises CrceError if this person already has as many runs in the queue as one person may."""
    if owner := current():
        waiting = [run for run in runs.all_runs() if run.state in ("queued", "running") and _read_owner(run) == owner]
        if len(waiting) >= MAX_WAITING:
            raise CrceError(f"{len(waiting)} of your runs wait already. Start another one when some of them are done.")


def require_shelf(own: int) -> None:
    """own: how many concepts of their own this person has. Raises CrceError if that is as many as one may have."""
    if current() and own >= MAX_CONCEPTS:
        raise CrceError(f"You have {own} concepts of your own. Delete one before you add another.")


def _read_owner(run: Run) -> str:
    path = run.dir / _OWNER
    # What cannot be read belongs to nobody but the operator.
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "?" if path.exists() else ""
