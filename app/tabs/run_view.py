"""A run in words and pictures, as the Start and Erase screens show it."""

import itertools
import math
from collections.abc import Callable

from app.components import data_url, small
from crce.cost import format_duration, format_size
from crce.evaluation.questions import METRICS
from crce.runs import PHASES, Run
from crce.runs.events import (
    CostEvent,
    DoneEvent,
    EstimateEvent,
    FailedEvent,
    PreviewEvent,
    StepEvent,
    StoppedEvent,
)

_CHIPS = {"running": "busy", "done": "good", "failed": "bad", "interrupted": "bad"}
_MOST_POINTS = 120


def facts(run: Run, waiting: list[str]) -> dict:
    """One run's row. `waiting` are the ids in the queue, the next one first."""
    state = run.state
    return {
        "id": run.id,
        "title": run.title,
        "method": run.job.config.method,
        "base": run.job.base,
        "state": "stopping" if run.stopping and state == "running" else state,
        "chip": _CHIPS.get(state, ""),
        "says": says(run, state, waiting),
        "part": percent(run),
        "erased": run.erased,
        "scores": scores(run),
        "size": format_size(run.size),
    }


def says(run: Run, state: str, waiting: list[str]) -> str:
    if state == "queued":
        place = waiting.index(run.id) + 1 if run.id in waiting else 1
        return "next in the queue" if place == 1 else f"number {place} in the queue"
    if state == "failed":
        failed = run.last(FailedEvent) or FailedEvent()
        return f"{failed.message} (log: {failed.log_id})" if failed.log_id else failed.message
    if state == "interrupted":
        return f"The worker ended before the run did. It is kept at step {run.kept_step}; Resume goes on there."
    if state == "stopped":
        return f"stopped at step {(run.last(StoppedEvent) or StoppedEvent()).step}; Resume goes on there"
    if state == "done":
        return f"done in {format_duration((run.last(DoneEvent) or DoneEvent()).seconds)}"
    return _working(run)


def _working(run: Run) -> str:
    progress = run.progress
    if progress is None:
        return "loading the model"
    left = f" · {format_duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    return f"{PHASES[progress.phase]} {progress.done}/{progress.of}{left}"


def percent(run: Run) -> int:
    progress = run.progress
    return round(100 * progress.done / max(progress.of, 1)) if progress else 0


def scores(run: Run) -> str:
    """The accuracies of the report, short."""
    report = run.report
    metrics = report.metrics if report else {}
    found = [(METRICS[key].name, metrics[key]) for key in ("acc_u", "acc_c_test", "acc_r_test") if key in metrics]
    return " · ".join(f"{name} {metric.rate:.0%} (n={metric.n})" for name, metric in found)


def costs(run: Run) -> dict[str, str]:
    """What the training took, beside what was estimated; one of the two while there is no more."""
    told, took = run.last(EstimateEvent), run.last(CostEvent)
    whose = f" (the {took.whose}'s peak)" if took else ""
    both = {
        "time": _beside(took.seconds if took else None, told.seconds if told else None, format_duration, ""),
        "memory": _beside(took.memory if took else None, told.memory if told else None, format_size, whose),
        "disk": _beside(took.disk if took else None, told.disk if told else None, format_size, ""),
    }
    return {name: said for name, said in both.items() if said}


def _beside(took: float | None, told: float | None, show: Callable[[float], str], more: str) -> str:
    estimated = "" if told is None else f"estimated {show(told)}"
    if took is None:
        return estimated
    return f"{show(took)}{more}, {estimated}" if estimated else f"{show(took)}{more}"


def losses(run: Run) -> list[dict]:
    """Rows for the curve: the mean loss of each term over a handful of steps."""
    steps = [event for event in run.events() if isinstance(event, StepEvent)]
    width = math.ceil(len(steps) / _MOST_POINTS) or 1
    return [row for start in range(0, len(steps), width) for row in _mean(steps[start : start + width])]


def _mean(steps: list[StepEvent]) -> list[dict]:
    terms = steps[-1].losses
    means = {term: sum(step.losses.get(term, 0) for step in steps) / len(steps) for term in terms}
    return [{"step": steps[-1].step, "term": term, "loss": mean} for term, mean in means.items()]


def frames(run: Run) -> list[dict]:
    """Per prompt, the previews in order of their steps."""
    shots = [shot for event in run.events() if isinstance(event, PreviewEvent) for shot in _shots(run, event)]
    by_prompt = sorted(shots, key=lambda shot: (shot["place"], shot["step"]))
    groups = itertools.groupby(by_prompt, key=lambda shot: (shot["place"], shot["prompt"]))
    return [{"prompt": prompt, "shots": list(group)} for (_, prompt), group in groups]


def _shots(run: Run, event: PreviewEvent) -> list[dict]:
    known = [(place, run.dir / name) for place, name in enumerate(event.images)]
    prompts = event.prompts
    return [
        {
            "place": place,
            "prompt": prompts[place % len(prompts)],
            "step": event.step,
            "src": data_url(small(path.read_bytes()), "image/png"),
        }
        for place, path in known
        if path.exists()
    ]
