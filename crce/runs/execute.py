"""The one way to work on a run, for the worker, the command line and everything else."""

import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from shutil import disk_usage
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from crce import files
from crce.concepts.spec import spec_to_dict
from crce.config import as_erased
from crce.cost import Cost, format_duration, machine
from crce.errors import CrceError
from crce.evaluation.report import Report, write_report
from crce.generators import Stream
from crce.runs.events import (
    CheckpointEvent,
    CostEvent,
    DoneEvent,
    EstimateEvent,
    EvaluatedEvent,
    Event,
    NoteEvent,
    NotJudgedEvent,
    Phase,
    PhaseEvent,
    PreviewEvent,
    StartEvent,
    StepEvent,
    StoppedEvent,
)
from crce.runs.failures import explain
from crce.runs.models import Models
from crce.runs.run import EvaluationRequest, Run

# torch takes seconds to import, and the web process and `--help` must not.
if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.evaluation.questions import Answers
    from crce.judges.judge import Judge, Usage
    from crce.methods.erased_weights import ErasedWeights
    from crce.models.diffusion import Diffusion
    from crce.training.loop import Step

P = TypeVar("P", PhaseEvent, StepEvent)
WRITE_EVERY = 0.5  # seconds between two step events in events.jsonl
REPORT_SEEDS = 2  # pictures per prompt that are kept beside a report
PREVIEWS = 3  # pictures of a preview: the target, a coref, a retain
SLOW_PICTURE = 20  # seconds of a picture from which on no previews are drawn
UNNOTICED = 1.0  # seconds that nobody minds
TERMS_AT_ONCE = 16  # terms whose pictures are drawn between two events


class Stopped(Exception):
    """A stop was requested."""


def execute(
    run: Run, models: Models | None = None, evaluation: EvaluationRequest | None = None
) -> Generator[Event, None, None]:
    """Does what the run lacks and yields its events; between two of them the caller may use the models.

    evaluation: requests one (see `Run.request_evaluate`) while the run is held, so that no worker takes it up first.
    The last event is a DoneEvent, StoppedEvent or FailedEvent. If the generator is closed or the process is killed,
    the run is interrupted and continues from its checkpoint next time. Raises Busy if another process works on the
    run, CrceError if its directory cannot be written.
    """
    with run.hold():
        began = time.monotonic()
        ending: Event
        try:
            yield run.record(StartEvent(os.getpid()))
            run.clear("resume")
            run.tidy()
            if evaluation:
                files.write_json(run.dir / "evaluate.json", asdict(evaluation))
            for event in _work(run, models or Models()):
                yield event
                if run.stopping:
                    raise Stopped
            ending = DoneEvent(round(time.monotonic() - began, 1))
        except Stopped:
            ending = StoppedEvent(run.kept_step)
        except Exception as error:
            ending = explain(error, run)
        yield _end(run, ending)


def _end(run: Run, ending: Event) -> Event:
    try:
        run.clear("stop")
        return run.record(replace(ending, time=time.time()))
    except OSError:
        # A full disk takes no event either. Without an ending the run counts as interrupted: it can be resumed.
        return ending


def _work(run: Run, models: Models) -> Iterator[Event]:
    job = run.job
    model = models.get(job.base, job.device, job.dtype)
    run.check_base(model.digest)
    run.record_base(model.digest)
    if not run.erased:
        models.rest_judge()
        yield from _train(run, model)
    from crce.training import checkpoints

    # Only now: until the weights are written, a resumed run needs it.
    checkpoints.discard(run.checkpoint_path)
    while request := run.evaluation:
        try:
            yield from _evaluate(run, model, models.judge(job.base, request.judge), request)
        except CrceError as error:  # no judge, or none that knows the concept: no failure of the erasure
            yield run.record(NotJudgedEvent(str(error)))
        # A newer request may have come meanwhile.
        if run.evaluation == request:
            run.clear("evaluate.json")


def _train(run: Run, model: "Diffusion") -> Iterator[Event]:
    from crce.training.estimate import estimate, reset_peak_memory, time_picture

    config, first = run.job.config, not run.checkpoint_path.exists()
    check_room(run, model, disk_usage(run.dir).free)
    picture = time_picture(model) if config.preview_every else 0.0
    every = config.preview_every if picture <= SLOW_PICTURE else 0
    if config.preview_every and not every:
        text = f"No previews are drawn: one picture takes about {format_duration(picture)} here."
        yield run.record(NoteEvent(text))
    if first:
        cost = estimate(model, run.job.specs, config)
        yield run.record(EstimateEvent(**asdict(cost)))
        if every and is_worth_it(PREVIEWS * picture, cost, picture / model.defaults.sample_steps):
            yield _preview(run, model)
    reset_peak_memory(model)
    sampling, training = Meter(run), Meter(run, kept := run.kept_step)
    for step in _take_steps(run, model):
        if isinstance(step, NoteEvent):
            kept = run.kept_step
            yield step
        elif step.phase == "bank":
            yield sampling.measure_phase("bank", step.number, step.total)
        else:
            if step.note:
                yield run.record(NoteEvent(step.note))
            yield from _keep_step(run, model, step, training, every, kept)
            kept = max(kept, step.kept)
        sampling.restart()
        training.restart()
    if first:
        yield _measure_cost(run, model, sampling.seconds + training.seconds)


def _take_steps(run: Run, model: "Diffusion") -> Iterator["Step | NoteEvent"]:
    """The steps from the last state that can be read; before them a note for each that is damaged."""
    from crce.training import checkpoints
    from crce.training.loop import erase_steps

    path = run.checkpoint_path
    while True:
        try:
            yield from erase_steps(model, run.job.specs, run.job.config, checkpoint=path, resume=True)
            return
        except checkpoints.BrokenCheckpoint:
            note = NoteEvent(checkpoints.set_aside(path))
        # Nothing is known to be kept, until a step says so.
        run.record(CheckpointEvent(0))
        yield run.record(note)


def _measure_cost(run: Run, model: "Diffusion", seconds: float) -> CostEvent:
    """What an uninterrupted training took, to compare with the estimate."""
    from crce.training.estimate import peak_memory

    memory, whose = peak_memory(model)
    return run.record(CostEvent(round(seconds, 1), memory, whose, run.size))


def is_worth_it(seconds: float, cost: Cost, rows: float) -> bool:
    """Whether previews before the first step take at most a tenth of the training, or no time worth a word.

    rows: seconds of two rows through the U-Net. A training whose time is not known takes at least that of its rows.
    """
    training = cost.seconds if cost.seconds is not None else cost.rows * rows / 2
    return seconds <= max(UNNOTICED, training / 10)


def _keep_step(
    run: Run, model: "Diffusion", step: "Step", meter: "Meter", preview_every: int, kept: int
) -> Iterator[Event]:
    """Writes what a training step made; the weights first, since a kill may come at any time. kept: the last step of
    which a checkpoint is known."""
    last = step.number == step.total
    if last:
        step.weights().save(run.weights_path)
    event = meter.measure_step(step.number, step.total, step.losses)
    if last or step.kept > kept:
        yield run.record(CheckpointEvent(step.number if last else step.kept))
    yield event
    if preview_every and (last or step.number % preview_every == 0):
        yield _preview(run, model, step)


def check_room(run: Run, model: "Diffusion", free: int) -> None:
    """Raises CrceError if `free` bytes of disk are less than the run needs."""
    from crce.training.estimate import disk_bytes

    needed = disk_bytes(model, run.job.specs, run.job.config)
    if free < needed:
        raise CrceError(
            f"The disk of {run.dir} has {free >> 20} MB free and this run needs {needed >> 20} MB. "
            "Free some space and resume, or start a run in another folder (--out, or CRCE_HOME)."
        )


class Meter:
    """Measures one phase: the time taken and left. It writes no more events than a person can follow.

    done: how much of the phase an earlier attempt did. seconds: taken so far, without what `restart` leaves out.
    """

    def __init__(self, run: Run, done: int = 0):
        self._run, self._written, self._done, self.seconds = run, 0.0, done, 0.0
        self._each: deque[float] = deque(maxlen=20)
        self.restart()

    def restart(self) -> None:
        """Restarts the timer, so that previews and requests between two steps are not counted."""
        self._began = time.monotonic()

    def measure_phase(self, phase: Phase, done: int, of: int, note: str = "") -> PhaseEvent:
        return self._record(PhaseEvent(phase, done, of, note=note), done, of)

    def measure_step(self, step: int, of: int, losses: dict[str, float]) -> StepEvent:
        return self._record(StepEvent(step, of, losses), step, of)

    def _record(self, event: P, done: int, of: int) -> P:
        """The event with the seconds left; written to the run if it is the phase's last, or not too soon."""
        now, more = time.monotonic(), done - self._done
        self.seconds += now - self._began
        if more > 0:
            self._each.append((now - self._began) / more)
        self._done, self._began = done, now
        # The median: one slow step does not change it.
        left = round(median(self._each) * (of - done), 1) if self._each else None
        event = replace(event, seconds_left=left)
        ended = done == of and more > 0
        if not ended and now - self._written < WRITE_EVERY:
            return event
        self._written = now
        return self._run.record(event)


def _preview(run: Run, model: "Diffusion", step: "Step | None" = None) -> PreviewEvent:
    """Draws the target, a coref and a retain with the weights as they are now, always with the same seed."""
    spec, number = as_erased(run.job.spec, run.job.config), step.number if step else 0
    terms = [*spec.train_corefs[:1], *spec.train_retains[:1]]
    prompts = (spec.target, *(term.text for term in terms))
    seeds = (0,) * len(prompts)
    with step.weights().applied(model) if step else nullcontext():
        pictures = model.generate_batch(list(prompts), list(seeds))
    names = tuple(f"images/preview-{number:05d}-{i}.png" for i in range(len(prompts)))
    _save_pictures(run, dict(zip(names, pictures, strict=True)))
    return run.record(PreviewEvent(number, prompts, seeds, names))


def _save_pictures(run: Run, pictures: "dict[str, Image]") -> None:
    for name, picture in pictures.items():
        (run.dir / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(run.dir / name)


def _evaluate(run: Run, model: "Diffusion", judge: "Judge", request: EvaluationRequest) -> Iterator[Event]:
    """Writes report.json, and pictures of the first concept's terms, before and after."""
    from crce.evaluation.evaluate import evaluate_steps
    from crce.methods.erased_weights import ErasedWeights

    began, before, weights = time.monotonic(), judge.usage, ErasedWeights.load(run.weights_path)
    answers = []
    for spec in run.job.specs:
        meter, judging = Meter(run), Stream(evaluate_steps(model, judge, spec, weights, request.images, request.ask))
        for done, of in judging:
            used = _measure_usage(judge, before)
            yield meter.measure_phase("evaluate", done, of, used.text if used else "")
        answers.append(judging.result)
    yield from _draw_terms(run, model, weights, answers[0])
    facts = {"judge": judge.facts.name, "judged_by": judge.facts, "usage": _measure_usage(judge, before)}
    seconds = round(time.monotonic() - began, 1)
    write_report(run.dir / "report.json", _report(run, request, answers, {**facts, "seconds": seconds}))
    yield run.record(EvaluatedEvent())


def _measure_usage(judge: "Judge", before: "Usage | None") -> "Usage | None":
    """What the judge has cost since; None for one that costs nothing."""
    return judge.usage.since(before) if judge.usage and before else None


def _report(
    run: Run, request: EvaluationRequest, answers: "Sequence[list[Answers]]", judging: dict[str, Any]
) -> Report:
    """The first concept's report, with those of the others in it."""
    from crce.evaluation.accuracies import summarise

    job = run.job
    facts = {"base": job.base, "base_digest": job.base_digest, "method": job.config.method,
             "config": asdict(job.config), "steps": run.kept_step, "images": request.images, "ask": request.ask,
             "dtype": job.dtype, "machine": machine(), **judging}  # fmt: skip
    report, *also = (
        summarise(as_erased(spec, job.config), each, spec=spec_to_dict(spec), **facts)
        for spec, each in zip(job.specs, answers, strict=True)
    )
    return replace(report, also=tuple(also))


def draw_by_eye(run: Run, models: Models) -> "Generator[tuple[int, int], None, list[Answers]]":
    """Draws every term of the first concept as an evaluation does, for a page without verdicts.

    Yields the terms done and wanted; returns the terms as answers without an answer.
    """
    from crce.evaluation.questions import list_terms
    from crce.methods.erased_weights import ErasedWeights

    model, weights = models.get(run.job.base, run.job.device, run.job.dtype), ErasedWeights.load(run.weights_path)
    terms = list_terms(run.job.spec, REPORT_SEEDS)
    for event in _draw_terms(run, model, weights, terms):
        yield event.done, event.of
    return terms


def _draw_terms(
    run: Run, model: "Diffusion", weights: "ErasedWeights", answers: "list[Answers]"
) -> Iterator[PhaseEvent]:
    """Draws the terms of a report, before and after."""
    meter, numbered, done = Meter(run), list(enumerate(answers)), 0
    while part := numbered[done : done + TERMS_AT_ONCE]:
        _save_pictures(run, _draw_pairs(model, weights, part))
        done += len(part)
        yield meter.measure_phase("pictures", done, len(answers))


def _draw_pairs(
    model: "Diffusion", weights: "ErasedWeights", answers: "list[tuple[int, Answers]]"
) -> "dict[str, Image]":
    """The first seeds of these terms, drawn by the base and by the erased model, by file name."""
    asked = [(number, a, seed) for number, a in answers for seed in a.seeds[:REPORT_SEEDS]]
    pictures: dict[str, Image] = {}
    for prefix, context in (("base-", nullcontext()), ("", weights.applied(model))):
        with context:
            drawn = model.generate_batch([a.text for _, a, _ in asked], [seed for _, _, seed in asked])
        names = [picture_name(a.kind, number, seed, prefix) for number, a, seed in asked]
        pictures |= dict(zip(names, drawn, strict=True))
    return pictures


def picture_name(kind: str, number: int, seed: int, prefix: str = "") -> str:
    """The path of a report's picture in the run's folder. number: the term's place in the report; prefix: "base-" for
    the picture before the erasure."""
    return f"images/eval/{prefix}{kind}-{number}-{seed}.png"
