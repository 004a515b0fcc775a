"""The line at the top: what draws, what proposes, what is being worked on, and what is missing."""

from app.components import render
from app.errors import report_errors
from crce import bases, runs
from crce.errors import CrceError
from crce.worker import client
from crce.worker.answers import StatusAnswer
from crce.worker.requests import StatusRequest

_DEVICES = {"cpu": "CPU", "cuda": "GPU", "cuda:0": "GPU", "auto": "starting"}


def at_first() -> str:
    """The line before anything has been asked."""
    return render("status", base=bases.EMOJI_SD)


@report_errors
def line() -> str:
    # The LLM client takes a second to import, which a page that opens must not wait for.
    from crce.proposers.proposers import proposer_status

    states = [run.state for run in runs.all_runs()]
    worker = _worker()
    connected, proposer = proposer_status()
    return render(
        "status",
        asked=True,
        device=_DEVICES.get(worker.device, worker.device) if worker else None,
        trouble=_model_trouble(),
        base=bases.EMOJI_SD,
        connected=connected,
        proposer=proposer,
        running=states.count("running"),
        waiting=states.count("queued"),
    )


def _model_trouble() -> str | None:
    """Why the default model cannot be used, if it cannot."""
    try:
        bases.resolve(bases.EMOJI_SD)
    except CrceError:
        return f"{bases.EMOJI_SD} is not here: its folder under assets/ is missing"
    return None


def _worker() -> StatusAnswer | None:
    """What the worker says of itself; nothing while it starts, or when it was not needed yet."""
    try:
        return client.send(StatusRequest(), timeout=1)
    except CrceError:
        return None
