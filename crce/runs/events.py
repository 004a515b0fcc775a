"""What happens in a run, one line of events.jsonl each: {"time": …, "kind": …, and the fields of its class}."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import time as now
from typing import ClassVar, Literal

from crce import files
from crce.cost import Cost
from crce.errors import CrceError
from crce.records import parse

Phase = Literal["bank", "train", "evaluate", "pictures"]
# What a run is doing, for people. "bank" fills the latent cache.
PHASES: dict[Phase, str] = {
    "bank": "preparing",
    "train": "erasing",
    "evaluate": "judging pictures",
    "pictures": "drawing the report's terms",
}


@dataclass(frozen=True)
class Progress:
    """How much of a phase is done, the seconds left where known, and what it has cost so far where that is known."""

    phase: Phase
    done: int
    of: int
    seconds_left: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Event:
    """time: seconds since 1970."""

    kind: ClassVar[str]
    time: float = field(default_factory=now, kw_only=True)


@dataclass(frozen=True)
class StartEvent(Event):
    """The process `pid` took the run up."""

    kind = "start"
    pid: int | None = None


@dataclass(frozen=True)
class EstimateEvent(Event, Cost):
    """What the training was expected to cost; the fields are those of `Cost`."""

    kind = "estimate"


@dataclass(frozen=True)
class PhaseEvent(Event):
    """Progress outside the training: `done` of `of` latents, pictures or terms. note: what it has cost so far."""

    kind = "phase"
    phase: Phase
    done: int
    of: int
    seconds_left: float | None = None
    note: str = ""

    @property
    def progress(self) -> Progress:
        return Progress(self.phase, self.done, self.of, self.seconds_left, self.note)


@dataclass(frozen=True)
class StepEvent(Event):
    """A training step is done. losses: by the name of the loss term."""

    kind = "step"
    step: int
    of: int
    losses: dict[str, float]
    seconds_left: float | None = None

    @property
    def progress(self) -> Progress:
        return Progress("train", self.step, self.of, self.seconds_left)


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """A resumed run continues after `step`."""

    kind = "checkpoint"
    step: int


@dataclass(frozen=True)
class PreviewEvent(Event):
    """Pictures with the weights after `step`. images: paths in the run's folder, one for each prompt and seed."""

    kind = "preview"
    step: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: tuple[str, ...]


@dataclass(frozen=True)
class CostEvent(Event):
    """What an uninterrupted training took. memory, disk: bytes; whose: "device" or "process", whose peak it is."""

    kind = "cost"
    seconds: float
    memory: int
    whose: str
    disk: int


@dataclass(frozen=True)
class EvaluatedEvent(Event):
    """report.json is written."""

    kind = "evaluated"


@dataclass(frozen=True)
class NotJudgedEvent(Event):
    """The judging that was asked for could not be done, and why. It is no failure: the erasure is there."""

    kind = "unjudged"
    reason: str


@dataclass(frozen=True)
class NoteEvent(Event):
    """Something that a person should know of the run: what was left out, and why."""

    kind = "note"
    text: str


@dataclass(frozen=True)
class DoneEvent(Event):
    """Everything that was asked for is done. seconds: of this attempt."""

    kind = "done"
    seconds: float = 0.0


@dataclass(frozen=True)
class StoppedEvent(Event):
    """Stopped on request. step: the step that is kept."""

    kind = "stopped"
    step: int = 0


@dataclass(frozen=True)
class FailedEvent(Event):
    """log_id: the id of the trace in worker.log; None where the message says everything."""

    kind = "failed"
    message: str = ""
    log_id: str | None = None


ENDINGS = (DoneEvent, StoppedEvent, FailedEvent)
EVENTS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (StartEvent, EstimateEvent, PhaseEvent, StepEvent, CheckpointEvent, PreviewEvent, CostEvent,
                  EvaluatedEvent, NotJudgedEvent, NoteEvent, *ENDINGS)
}  # fmt: skip


def to_line(event: Event) -> bytes:
    """The event as a line of events.jsonl, without the line break."""
    facts = asdict(event)
    return json.dumps({"time": facts.pop("time"), "kind": event.kind, **facts}).encode()


def from_line(line: bytes) -> Event | None:
    """None for a line that is no event: torn by a kill, or written by something else."""
    try:
        facts = files.parse_json(line)
        return parse(EVENTS[facts["kind"]], facts, "event")
    except (ValueError, LookupError, TypeError, CrceError):
        return None
