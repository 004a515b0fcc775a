"""How far a run is over all of its phases, and how long it still takes: one figure for each."""

import time
from dataclasses import dataclass

from crce import runs
from crce.cost import format_duration
from crce.evaluation.questions import TARGET_FACTOR
from crce.runs import PHASES, Job, Run
from crce.runs.events import CostEvent, EstimateEvent, Phase, PhaseEvent, StartEvent, StepEvent

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
    mark = run.history.latest(PhaseEvent, StepEvent, StartEvent)
    if not isinstance(mark, Mark):
        return Forecast(round(100 * _find_kept(run)), _describe_beginning(run))
    judging = bool(run.evaluation) or mark.progress.phase in ("evaluate", "pictures")
    stepped = isinstance(run.history.latest(StepEvent, StartEvent), StepEvent)
    trains = stepped or mark.progress.phase in ("bank", "train")
    parts = _expect_parts(run, trains, judging)
    return Forecast(_compute_percent(run, mark, parts), _describe(run, mark, judging))


def estimate_training(base: str, method: str, steps: int) -> float | None:
    """Seconds at the pace of the last run of this base and method on this machine; None before the first."""
    found = [run for run in runs.all_runs() if run.facts.base == base and run.facts.method == method]
    pace = next((pace for run in found if (pace := _measure_pace(run))), None)
    return None if pace is None else pace * steps


def _measure_pace(run: Run) -> float | None:
    """Seconds per step of a run that trained without interruption, else None. Of the training alone, as the estimate
    and what is told of a run that is done."""
    cost, last = run.last(CostEvent), run.last(StepEvent)
    return cost.seconds / last.step if run.erased and cost and last else None


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


def _expect_training(run: Run) -> tuple[float, float] | None:
    """Seconds for the latent cache and for the steps: what the run itself has timed, else what the last one like it
    took. Steps that a resumed run keeps are not trained again."""
    estimate, facts = run.last(EstimateEvent), run.facts
    whole = estimate.seconds if estimate else estimate_training(facts.base, facts.method, run.job.config.steps)
    return None if whole is None else (_CACHE * whole, (1 - _CACHE) * whole * (1 - _find_kept(run)))


def _describe_beginning(run: Run) -> str:
    """Of a run without a latent: what it is doing, with the time that it takes from the first one on."""
    timed = isinstance(run.history.latest(EstimateEvent, StartEvent), EstimateEvent)
    text = "drawing the first preview" if timed else "loading the model and timing a step"
    expected = None if run.erased else _expect_training(run)
    return f"{text}{_describe_left(run, sum(expected) if expected else None, bool(run.evaluation))}"


def _describe(run: Run, mark: Mark, judging: bool) -> str:
    progress = mark.progress
    if progress.phase == "train" and progress.done == progress.of:
        return "erased; loading the judge" if judging else "saving the result"
    if progress.phase in ("evaluate", "pictures"):
        left = _describe_total(_count_judging(run, mark))
    else:
        left = _describe_left(run, _count_training(run, mark), judging)
    note = f" · {progress.note}" if progress.note else ""
    return f"{PHASES[progress.phase]} {progress.done}/{progress.of}{left}{note}"


def _count_promised(mark: Mark) -> float | None:
    """Seconds until the phase ends; what the event promised has passed in part."""
    promised = mark.progress.seconds_left
    return None if promised is None else promised - (time.time() - mark.time)


def _count_training(run: Run, mark: Mark) -> float | None:
    """Seconds until the training ends, of a run that fills its cache or trains."""
    promised = _count_promised(mark)
    if mark.progress.phase == "train":
        return promised
    expected = _expect_training(run)
    if expected is None:
        return None
    cache, steps = expected
    done = mark.progress.done / max(mark.progress.of, 1)
    return steps + (cache * (1 - done) if promised is None else promised)


def _count_judging(run: Run, mark: Mark) -> float | None:
    """Seconds until the report is drawn, of a run that is judged."""
    promised = _count_promised(mark)
    if promised is None or mark.progress.phase == "pictures":
        return promised
    return promised + _PICTURES * (_expect_judging(run) or 0.0)


def _describe_left(run: Run, training: float | None, judging: bool) -> str:
    """The time left in all where that of the judging is known too, else that of the training."""
    if training is None:
        return ""
    expected = _expect_judging(run) if judging else 0.0
    if expected is None:
        return f"{_describe_rest(training, 'left')}, then the pictures are judged"
    return _describe_total(training + expected)


def _describe_total(left: float | None) -> str:
    return "" if left is None else _describe_rest(left, "left in all")


def _describe_rest(left: float, of: str) -> str:
    if left < -_LATE:
        return " · longer than expected"
    return f" · {format_duration(left)} {of}" if left >= 1 else " · nearly done"
