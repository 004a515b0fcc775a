"""The picture of a weights repository: the concept, a name and a neighbour, before and after on the same seeds."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from crce.evaluation.report import Report
from crce.picture_grid import GONE, KEPT, GridRow, Label, draw_grid
from crce.runs import Run
from crce.runs.events import PreviewEvent
from crce.runs.execute import picture_name

FILE = "before-after.png"
_SIDE, _SEEDS = 128, 3
_NOTES = {"target": ("erased", GONE), "coref": ("erased, another name", GONE), "retain": ("kept", KEPT)}
_TIMES = ("before", "after")


@dataclass(frozen=True)
class Drawn:
    """A prompt, its kind ("" where that is not known), and the files before and after."""

    prompt: str
    kind: str
    before: tuple[Path, ...]
    after: tuple[Path, ...]

    @property
    def whole(self) -> bool:
        return bool(self.before) and all(path.is_file() for path in (*self.before, *self.after))


def find_drawn(run: Run) -> list[Drawn]:
    """What an evaluation drew of the concept, a name and a neighbour, held out of the training where there are such;
    else the previews of the training. Empty where neither is there."""
    report = run.report
    found = [each for each in _list_evaluated(run, report) if each.whole] if report else []
    return found or [each for each in _list_previews(run) if each.whole]


def _list_evaluated(run: Run, report: Report) -> Iterator[Drawn]:
    numbered = list(enumerate(report.terms))
    for kind in _NOTES:
        own = [(number, term) for number, term in numbered if term.kind == kind]
        own.sort(key=lambda each: each[1].split != "test")
        for number, term in own[:1]:
            before, after = (
                tuple(run.dir / picture_name(kind, number, seed, prefix) for seed in term.seeds[:_SEEDS])
                for prefix in ("base-", "")
            )
            yield Drawn(term.text, kind, before, after)


def _list_previews(run: Run) -> list[Drawn]:
    events = [event for event in run.events() if isinstance(event, PreviewEvent)]
    if len(events) < 2 or events[0].step or events[0].prompts != events[-1].prompts:
        return []
    first, last = ([run.dir / name for name in event.images] for event in (events[0], events[-1]))
    pairs = zip(events[0].prompts, first, last, strict=False)
    return [Drawn(prompt, "", (before,), (after,)) for prompt, before, after in pairs]


def draw_before_after(found: list[Drawn]) -> bytes:
    """The pictures as one PNG."""
    width = min(len(each.before) for each in found)
    rows = [_draw_row(each, width) for each in found]
    file = io.BytesIO()
    draw_grid([Label(time) for time in _TIMES], rows, _SIDE).save(file, "PNG")
    return file.getvalue()


def _draw_row(drawn: Drawn, width: int) -> GridRow:
    note, colour = _NOTES.get(drawn.kind, ("", GONE))
    cells = [[_open(path) for path in paths[:width]] for paths in (drawn.before, drawn.after)]
    return GridRow(Label(drawn.prompt, note, colour), cells)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()
