"""The line at the top: device, proposer, runs in progress, and what is missing."""

import threading

from app.components import render
from app.errors import report_errors
from crce import bases, devices, runs
from crce.environment import on_space
from crce.errors import CrceError
from crce.runs import Run
from crce.worker import client
from crce.worker.answers import StatusAnswer
from crce.worker.requests import StatusRequest

_NEWS = 20  # runs of whose end the page's title tells
_asking = threading.Lock()
_known: StatusAnswer | None = None
_DEVICES = {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "auto": "starting"}


def render_initial() -> str:
    """The line before the worker has been asked."""
    return render("status", base=bases.EMOJI_SD)


@report_errors
def render_status() -> str:
    return find_news(runs.all_runs())


def find_news(found: list[Run]) -> str:
    """The line itself."""
    states = [run.state for run in found]
    worker = _ask_status()
    proposer, hint = _name_proposer()
    return render(
        "status",
        asked=True,
        device=_DEVICES.get(worker.device, worker.device) if worker else None,
        problem=_find_model_problem(),
        ignored=_find_ignored_card(worker),
        base=bases.EMOJI_SD,
        proposer=proposer,
        hint=hint,
        running=states.count("running"),
        waiting=states.count("queued"),
        runs=[
            {"id": run.id, "title": run.facts.title, "state": state}
            for run, state in zip(found[:_NEWS], states, strict=False)
        ],
        space=on_space(),
    )


def _name_proposer() -> tuple[str, str]:
    """The proposer as the talk names it, and what would connect a language model, or is wrong with it."""
    # The LLM client takes a second to import; the page must not wait for it.
    from crce.proposers.proposers import proposer, proposer_status

    connected, text = proposer_status()
    try:
        return proposer().label, "" if connected else f"({text.removeprefix('no LLM connected: ')})"
    except CrceError:
        return "none", text


def _find_model_problem() -> str | None:
    """Why the default model cannot be used, if it cannot."""
    try:
        bases.resolve(bases.EMOJI_SD)
    except CrceError:
        return f"{bases.EMOJI_SD} is missing: its folder under assets/ was not found"
    return None


def _find_ignored_card(worker: StatusAnswer | None) -> str:
    """Why a card of this machine is not used, if it is not."""
    cards = devices.usable_cards()
    if cards and worker and worker.device == devices.CPU:
        return f"The GPU ({cards[0]}) is not used: torch finds no CUDA there. Its driver may have to be restarted."
    return devices.problem()


def _ask_status() -> StatusAnswer | None:
    """The worker's status; None while it is starting or has not been needed yet.

    One page asks at a time, and the others see what it was told: a worker that does not answer holds up one thread.
    """
    global _known
    if _asking.acquire(blocking=False):
        try:
            _known = client.send(StatusRequest(), timeout=1)
        except CrceError:
            _known = None
        finally:
            _asking.release()
    return _known
