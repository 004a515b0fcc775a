"""What events.jsonl comes to, read incrementally: only what was appended since is read, and no event but the last of
its kind is kept."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from crce.runs.events import (
    ENDINGS,
    CheckpointEvent,
    EvaluatedEvent,
    Event,
    NoteEvent,
    NotJudgedEvent,
    PhaseEvent,
    PreviewEvent,
    Progress,
    StartEvent,
    StepEvent,
    from_line,
)

E = TypeVar("E", bound=Event)
T = TypeVar("T", bound="Tail")
POINTS = 120  # of a loss curve, at most
# Of a file: inode, time in ns, bytes. It changes whenever the file does; None for a file that is not there.
Stamp = tuple[int, int, int]


def stamp_of(path: Path | str) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(frozen=True)
class Tail:
    """How far events.jsonl was read: its first `offset` bytes, the last of which are `end`, when it had this stamp."""

    stamp: Stamp | None = None
    offset: int = 0
    end: str = ""

    def add(self: T, events: Iterator[Event]) -> T:
        """With these events, which came after those that were read; takes all of them."""
        raise NotImplementedError

    def read_on(self: T, path: Path | str) -> T:
        """With what was appended since, or from the beginning where this is another file. A line without its end,
        which a kill may leave, waits for its end. Raises OSError."""
        stamp = stamp_of(path)
        if stamp == self.stamp:
            return self
        if stamp is None:
            return type(self)()
        with open(path, "rb") as file:
            end = bytes.fromhex(self.end)
            file.seek(self.offset - len(end))
            known = self if file.read(len(end)) == end else type(self)()
            file.seek(known.offset)
            lines = _Lines(known.offset, end if known is self else b"")
            read = known.add(event for line in lines.take(file) if (event := from_line(line)))
        return replace(read, stamp=stamp, offset=lines.offset, end=lines.end.hex())


class _Lines:
    """The whole lines of a file, and where they end."""

    def __init__(self, offset: int, end: bytes):
        self.offset, self.end = offset, end

    def take(self, file: Iterator[bytes]) -> Iterator[bytes]:
        for line in file:
            if not line.endswith(b"\n"):
                return
            self.offset += len(line)
            self.end = line[-32:]
            yield line


@dataclass(frozen=True)
class History(Tail):
    """What happened in a run, as far as a list of runs shows it.

    counts: events by kind. last: the latest event of each kind, and its number among all. notes: each text once.
    """

    counts: dict[str, int] = field(default_factory=dict)
    last: dict[str, tuple[int, Event]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def add(self, events: Iterator[Event]) -> "History":
        counts, last, notes = dict(self.counts), dict(self.last), dict.fromkeys(self.notes)
        for number, event in enumerate(events, sum(counts.values())):
            counts[event.kind] = counts.get(event.kind, 0) + 1
            last[event.kind] = number, event
            if isinstance(event, NoteEvent):
                notes[event.text] = None
        return replace(self, counts=counts, last=last, notes=tuple(notes))

    def find(self, kind: type[E]) -> E | None:
        """The latest event of this class."""
        _, event = self.last.get(kind.kind, (0, None))
        return event if isinstance(event, kind) else None

    def latest(self, *kinds: type[Event]) -> Event | None:
        """The latest event of these classes."""
        found = [self.last[kind.kind] for kind in kinds if kind.kind in self.last]
        return max(found, key=lambda entry: entry[0])[1] if found else None

    @property
    def mark(self) -> Event | None:
        """The latest start or ending."""
        return self.latest(StartEvent, *ENDINGS)

    @property
    def progress(self) -> Progress | None:
        """How far the current or last attempt came; None before its first step."""
        event = self.latest(PhaseEvent, StepEvent, StartEvent)
        return event.progress if isinstance(event, PhaseEvent | StepEvent) else None

    @property
    def kept_step(self) -> int:
        last = self.find(CheckpointEvent)
        return last.step if last else 0

    @property
    def not_judged(self) -> str:
        mark = self.latest(EvaluatedEvent, NotJudgedEvent)
        return mark.reason if isinstance(mark, NotJudgedEvent) else ""


@dataclass(frozen=True)
class Point:
    """The mean loss by term over `steps` steps, which end with `step`."""

    step: int
    steps: int
    losses: dict[str, float]

    def join(self, later: "Point") -> "Point":
        steps = self.steps + later.steps
        pairs = {term: (self.losses.get(term, 0.0), loss) for term, loss in later.losses.items()}
        means = {term: (one * self.steps + two * later.steps) / steps for term, (one, two) in pairs.items()}
        return Point(later.step, steps, means)


@dataclass(frozen=True)
class Curve(Tail):
    """What the details of a run show: its losses in at most POINTS points of `width` steps each, and its previews."""

    points: tuple[Point, ...] = ()
    width: int = 1
    previews: tuple[PreviewEvent, ...] = ()

    def add(self, events: Iterator[Event]) -> "Curve":
        points, width, previews = list(self.points), self.width, list(self.previews)
        for event in events:
            if isinstance(event, PreviewEvent):
                previews.append(event)
            if not isinstance(event, StepEvent):
                continue
            point = Point(event.step, 1, event.losses)
            if points and points[-1].steps < width:
                points[-1] = points[-1].join(point)
            else:
                points.append(point)
            if len(points) > POINTS:
                # Half as many, of twice as many steps; the last of an odd number stays alone until it is full.
                points = [_join(points[start : start + 2]) for start in range(0, len(points), 2)]
                width *= 2
        return replace(self, points=tuple(points), width=width, previews=tuple(previews))


def _join(points: list[Point]) -> Point:
    first, *later = points
    return first.join(later[0]) if later else first
