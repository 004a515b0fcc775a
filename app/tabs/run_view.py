"""A run in words and pictures, as the Start and Erase tabs show it."""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from app.components import data_url, shrink
from app.errors import in_page_words
from app.tabs.run_forecast import forecast
from crce.cost import format_duration, format_size
from crce.evaluation.metrics import METRICS
from crce.runs import Run
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
    """What a run's card shows. when: it was asked for; chip: the CSS class of its state; percent: of the whole run."""

    id: str
    title: str
    when: str
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


@dataclass(frozen=True)
class Queue:
    """waiting: the ids of the queued runs, the next one first. running: what they wait for, with its progress."""

    waiting: Sequence[str] = ()
    running: str = ""


def list_queue(found: list[Run]) -> Queue:
    """`found` has the newest first."""
    running = [f"“{run.title}”, {forecast(run).text}" for run in found if run.state == "running"]
    return Queue([run.id for run in reversed(found) if run.state == "queued"], "; ".join(running))


def arrange(found: list[Run], find: str, order: str) -> list[Run]:
    """Those runs in whose title, concept, method, base or state every word occurs. `found` has the newest first."""
    words = find.casefold().split()
    kept = [run for run in found if not words or all(word in _list_words(run) for word in words)]
    return sorted(kept, key=ORDERS.get(order) or (lambda run: 0))


def _list_words(run: Run) -> str:
    facts = run.facts
    return " ".join([facts.title, facts.slug, facts.method, facts.label, facts.base, run.state]).casefold()


def _find_h(run: Run) -> float:
    report = run.report if run.scores.scores else None
    return -1.0 if report is None else report.h or 0.0


# A sort key of each order; runs that are equal keep the newest first.
ORDERS: dict[str, Callable[[Run], Any]] = {
    "newest first": lambda run: 0,
    "by name": lambda run: run.facts.title.casefold(),
    "by method": lambda run: run.facts.method,
    "best H first": lambda run: -_find_h(run),
    "running first": lambda run: ["running", "queued"].index(run.state) if run.state in ("running", "queued") else 2,
}


def summarize(run: Run, queue: Queue = Queue()) -> RunSummary:
    state, facts = run.state, run.facts
    seen = forecast(run) if state in ("running", "stopped", "failed", "interrupted") else None
    return RunSummary(
        id=run.id,
        title=facts.title,
        when=tell_when(run),
        method=facts.method,
        base=facts.base,
        state="stopping" if run.stopping and state == "running" else state,
        chip=_CHIPS.get(state, ""),
        description=seen.text if seen and state == "running" else describe_state(run, state, queue),
        percent=seen.percent if seen else 0,
        erased=run.erased,
        scores=summarize_scores(run),
        size=format_size(run.about_size),
    )


def tell_when(run: Run) -> str:
    """When it was asked for: two runs may have one name."""
    return time.strftime("%d %b %H:%M", time.localtime(run.facts.created))


def describe_state(run: Run, state: str, queue: Queue) -> str:
    if state == "queued":
        return _describe_waiting(run, queue)
    if state == "failed" and (failed := run.last(FailedEvent)):
        message = in_page_words(failed.message)
        return f"{message} (log: {failed.log_id})" if failed.log_id else message
    if state == "interrupted":
        return f"The worker stopped at step {run.kept_step}. Press Resume to continue."
    if state == "stopped" and (stopped := run.last(StoppedEvent)):
        return f"Stopped at step {stopped.step}. Press Resume to continue."
    if state == "done" and (done := run.last(DoneEvent)):
        unjudged = f" Not judged: {run.not_judged}" if run.not_judged else ""
        return f"Done in {format_duration(done.seconds)}{_split_time(run, done.seconds)}.{unjudged}"
    return forecast(run).text


def _describe_waiting(run: Run, queue: Queue) -> str:
    place = queue.waiting.index(run.id) + 1 if run.id in queue.waiting else 1
    where = "next in the queue" if place == 1 else f"number {place} in the queue"
    return f"{where}, after {queue.running}" if queue.running else f"{where}; the worker is starting"


def _split_time(run: Run, whole: float) -> str:
    """What erasing and judging took of the whole, and the rest; empty where they are not known, or were not one."""
    cost, judging = run.last(CostEvent), run.scores.seconds
    if not cost or not judging:
        return ""
    rest = whole - cost.seconds - judging
    if rest < 0:
        return ""
    more = f", {format_duration(rest)} to load and to draw previews and the report" if rest >= 1 else ""
    return f" ({format_duration(cost.seconds)} to erase, {format_duration(judging)} to judge{more})"


def summarize_scores(run: Run) -> str:
    """The main accuracies of the report in one line; the strict ones where it has them."""
    found = run.scores
    known = found.scores or {}
    scores = [(METRICS[key].name, *known[key]) for key in ("acc_u", "acc_c_test", "acc_r_test") if key in known]
    note = " · strict" if found.strict and scores else ""
    return " · ".join(f"{name} {rate:.0%} (n={n})" for name, rate, n in scores) + note


def compare_costs(run: Run) -> dict[str, str]:
    """What the training took, next to its estimate; either may be missing. Only what is of the same quantity stands
    side by side: a process has more in memory than the run."""
    estimate, cost = run.last(EstimateEvent), run.last(CostEvent)
    device = cost.memory if cost and cost.whose == "device" else None
    texts = {
        "erasing": _compare_cost(
            cost.seconds if cost else None, estimate.seconds if estimate else None, format_duration
        ),
        "memory": _compare_cost(device, estimate.memory if estimate else None, format_size),
        "peak of the whole worker": format_size(cost.memory) if cost and device is None else "",
        "disk while it runs": _compare_cost(
            cost.disk if cost else None, estimate.disk if estimate else None, format_size, "at most"
        ),
    }
    return {name: text for name, text in texts.items() if text}


def _compare_cost(actual: N | None, estimated: N | None, show: Callable[[N], str], word: str = "estimated") -> str:
    parts = [
        *([show(actual)] if actual is not None else []),
        *([f"{word} {show(estimated)}"] if estimated is not None else []),
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
