"""A run in words and pictures, as the Start and Erase tabs show it."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from app.components import data_url, shrink
from crce.cost import format_duration, format_size
from crce.evaluation.metrics import METRICS
from crce.runs import PHASES, Run
from crce.runs.events import (
    CostEvent,
    DoneEvent,
    EstimateEvent,
    FailedEvent,
    PreviewEvent,
    StoppedEvent,
)

_CHIPS = {"running": "busy", "done": "good", "failed": "bad", "interrupted": "bad"}
N = TypeVar("N", int, float)
# What reading a damaged picture may fail with.
_NO_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class RunSummary:
    """What a run's card shows. chip: the CSS class of its state; percent: progress of the current phase."""

    id: str
    title: str
    method: str
    base: str
    state: str
    chip: str
    description: str
    percent: int
    erased: bool
    scores: str
    size: str


@dataclass(frozen=True)
class PreviewImage:
    """A picture drawn during training. place: its position among those of the same step."""

    prompt: str
    place: int
    step: int
    src: str


@dataclass(frozen=True)
class PreviewRow:
    """The pictures of one prompt, by step."""

    prompt: str
    images: list[PreviewImage]


def list_queue(found: list[Run]) -> list[str]:
    """The ids of the queued runs, the next one first. `found` has the newest first."""
    return [run.id for run in reversed(found) if run.state == "queued"]


def summarize(run: Run, queue: list[str]) -> RunSummary:
    state, facts = run.state, run.facts
    return RunSummary(
        id=run.id,
        title=facts.title,
        method=facts.method,
        base=facts.base,
        state="stopping" if run.stopping and state == "running" else state,
        chip=_CHIPS.get(state, ""),
        description=describe_state(run, state, queue),
        percent=compute_percent(run),
        erased=run.erased,
        scores=summarize_scores(run),
        size=format_size(run.about_size),
    )


def describe_state(run: Run, state: str, queue: list[str]) -> str:
    if state == "queued":
        place = queue.index(run.id) + 1 if run.id in queue else 1
        return "next in the queue" if place == 1 else f"number {place} in the queue"
    if state == "failed" and (failed := run.last(FailedEvent)):
        return f"{failed.message} (log: {failed.log_id})" if failed.log_id else failed.message
    if state == "interrupted":
        return f"The worker stopped at step {run.kept_step}. Press Resume to continue."
    if state == "stopped" and (stopped := run.last(StoppedEvent)):
        return f"Stopped at step {stopped.step}. Press Resume to continue."
    if state == "done" and (done := run.last(DoneEvent)):
        unjudged = f" Not judged: {run.not_judged}" if run.not_judged else ""
        return f"Done in {format_duration(done.seconds)}.{unjudged}"
    return _describe_progress(run)


def _describe_progress(run: Run) -> str:
    progress = run.progress
    if progress is None:
        return "loading the model"
    left = f" · {format_duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    note = f" · {progress.note}" if progress.note else ""
    return f"{PHASES[progress.phase]} {progress.done}/{progress.of}{left}{note}"


def compute_percent(run: Run) -> int:
    progress = run.progress
    return round(100 * progress.done / max(progress.of, 1)) if progress else 0


def summarize_scores(run: Run) -> str:
    """The main accuracies of the report in one line; the strict ones where it has them."""
    found = run.scores
    known = found.scores or {}
    scores = [(METRICS[key].name, *known[key]) for key in ("acc_u", "acc_c_test", "acc_r_test") if key in known]
    note = " · strict" if found.strict and scores else ""
    return " · ".join(f"{name} {rate:.0%} (n={n})" for name, rate, n in scores) + note


def compare_costs(run: Run) -> dict[str, str]:
    """What the training took, next to its estimate; either may be missing."""
    estimate, cost = run.last(EstimateEvent), run.last(CostEvent)
    peak = f" (the {cost.whose}'s peak)" if cost else ""
    texts = {
        "time": _compare_cost(cost.seconds if cost else None, estimate.seconds if estimate else None, format_duration),
        "memory": _compare_cost(
            cost.memory if cost else None, estimate.memory if estimate else None, format_size, peak
        ),
        "disk": _compare_cost(cost.disk if cost else None, estimate.disk if estimate else None, format_size),
    }
    return {name: text for name, text in texts.items() if text}


def _compare_cost(actual: N | None, estimated: N | None, show: Callable[[N], str], note: str = "") -> str:
    parts = [
        *([f"{show(actual)}{note}"] if actual is not None else []),
        *([f"estimated {show(estimated)}"] if estimated is not None else []),
    ]
    return ", ".join(parts)


def average_losses(run: Run) -> list[dict]:
    """Rows of the loss curve: the mean loss of each term over a few steps."""
    points = run.curve.points
    return [{"step": point.step, "term": term, "loss": loss} for point in points for term, loss in point.losses.items()]


def group_previews(run: Run) -> list[PreviewRow]:
    """The pictures drawn during training, by prompt."""
    images = [image for event in run.curve.previews for image in _read_previews(run, event)]
    images.sort(key=lambda image: (image.place, image.step))
    groups = itertools.groupby(images, key=lambda image: (image.place, image.prompt))
    return [PreviewRow(prompt, list(group)) for (_, prompt), group in groups]


def _read_previews(run: Run, event: PreviewEvent) -> list[PreviewImage]:
    """Those that are there and can be read."""
    images = []
    for place, (prompt, name) in enumerate(zip(itertools.cycle(event.prompts), event.images, strict=False)):
        with suppress(*_NO_PICTURE):
            png = shrink((run.dir / "images" / Path(name).name).read_bytes())
            images.append(PreviewImage(prompt, place, event.step, data_url(png, "image/png")))
    return images
