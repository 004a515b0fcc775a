"""How far a run is over all of its phases, and how long it still takes: one figure for each."""

import time
from dataclasses import dataclass

from crce import runs
from crce.cost import format_duration
from crce.evaluation.questions import TARGET_FACTOR
from crce.runs import PHASES, Job, Run
from crce.runs.events import EstimateEvent, Phase, PhaseEvent, StartEvent, StepEvent

Mark = PhaseEvent | StepEvent
# The part of the training that fills the latent cache, and of the judging that draws the report's terms, as they were
# on the default model. Like the seconds of a training without an estimate, they only set the pace of the bar.
_CACHE, _PICTURES, _TRAINING = 0.1, 0.15, 60.0
_LATE = 10  # seconds after the promised end from which on it is told


@dataclass(frozen=True)
class Forecast:
    """percent: of the whole run. text: what it is doing, with the time left in all where every part is known."""

    percent: int
    text: str


def forecast(run: Run) -> Forecast:
    """Of a run that is being worked on, or was."""
    history = run.history
    mark = history.latest(PhaseEvent, StepEvent, StartEvent)
    if not isinstance(mark, Mark):
        drawing = isinstance(history.latest(EstimateEvent, StartEvent), EstimateEvent)
        text = "drawing the first preview" if drawing else "loading the model and timing a step"
        return Forecast(round(100 * _find_kept(run)), text)
    judging = bool(run.evaluation) or mark.progress.phase in ("evaluate", "pictures")
    stepped = isinstance(history.latest(StepEvent, StartEvent), StepEvent)
    trains = stepped or mark.progress.phase in ("bank", "train")
    parts = _expect_parts(run, trains, judging)
    left = _count_left(run, mark, judging)
    return Forecast(_compute_percent(run, mark, parts), _describe(mark, left, judging))


def estimate_judging(job: Job, images: float) -> float | None:
    """Seconds at the pace of the last judging of this base on this machine; None before the first."""
    for run in runs.all_runs():
        found = run.scores if run.facts.base == job.base else None
        if found and found.seconds and found.images:
            return found.seconds * images * _count_pictures(job) / (found.images * _count_pictures(run.job))
    return None


def _count_pictures(job: Job) -> int:
    """Judged pictures, for each picture per term."""
    return sum(TARGET_FACTOR + len(spec.corefs) + len(spec.retains) for spec in job.specs)


def _find_kept(run: Run) -> float:
    """The share of the training that a resumed run need not repeat."""
    return run.kept_step / max(run.job.config.steps, 1)


def _expect_parts(run: Run, trains: bool, judging: bool) -> dict[Phase, float]:
    """What each phase takes of the whole, in seconds. One that only judges anew has no training to count."""
    estimate = run.last(EstimateEvent)
    training = (estimate.seconds if estimate else None) or _TRAINING
    expected = _expect_judging(run) or training / 2
    parts: dict[Phase, float] = {"bank": _CACHE * training, "train": (1 - _CACHE) * training} if trains else {}
    return parts | ({"evaluate": (1 - _PICTURES) * expected, "pictures": _PICTURES * expected} if judging else {})


def _compute_percent(run: Run, mark: Mark, parts: dict[Phase, float]) -> int:
    progress, order = mark.progress, list(parts)
    before = sum(parts[phase] for phase in order[: order.index(progress.phase)])
    done = before + parts[progress.phase] * progress.done / max(progress.of, 1)
    # A resumed run fills its cache again, but its steps are not lost.
    kept = parts.get("train", 0.0) * _find_kept(run) if progress.phase == "bank" else 0.0
    return round(100 * max(done, kept) / (sum(parts.values()) or 1))


def _expect_judging(run: Run) -> float | None:
    request = run.evaluation
    return estimate_judging(run.job, request.images) if request else None


def _count_left(run: Run, mark: Mark, judging: bool) -> float | None:
    """Seconds from now to the end; None where a part is unknown. What the last event promised has passed in part."""
    progress, now = mark.progress, time.time()
    if progress.seconds_left is None:
        return None
    left, expected = progress.seconds_left - (now - mark.time), _expect_judging(run) if judging else 0.0
    if progress.phase == "bank":
        estimate, start = run.last(EstimateEvent), run.last(StartEvent)
        if not start or not estimate or estimate.seconds is None or run.kept_step:
            return None
        left = max(estimate.seconds - (now - start.time), left)
    if progress.phase in ("evaluate", "pictures"):
        return left + _PICTURES * (expected or 0.0) * (progress.phase == "evaluate")
    return None if expected is None else left + expected


def _describe(mark: Mark, left: float | None, judging: bool) -> str:
    progress = mark.progress
    if progress.phase == "train" and progress.done == progress.of:
        return "erased; loading the judge" if judging else "saving the result"
    note = f" · {progress.note}" if progress.note else ""
    return f"{PHASES[progress.phase]} {progress.done}/{progress.of}{_describe_left(mark, left, judging)}{note}"


def _describe_left(mark: Mark, left: float | None, judging: bool) -> str:
    promised = mark.progress.seconds_left
    if left is None and promised and mark.progress.phase == "train":
        then = ", then the pictures are judged" if judging else ""
        return f" · {format_duration(promised)} left{then}"
    if left is None:
        return ""
    if left < -_LATE:
        return " · longer than expected"
    return f" · {format_duration(left)} left in all" if left >= 1 else " · nearly done"
