"""Output of the command line: progress goes to stderr, results to stdout."""

import json
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from crce.errors import CrceError
from crce.evaluation.metrics import METRICS
from crce.evaluation.report import Accuracy, Report
from crce.generators import Stream
from crce.runs import PHASES, Event, Run
from crce.runs.events import FailedEvent, NoteEvent, NotJudgedEvent, PhaseEvent, StepEvent, StoppedEvent

if TYPE_CHECKING:
    from crce.experiments.tables import JobEvent

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


def say(facts: object, text: str | Table, as_json: bool) -> None:
    """Prints a result: `facts` as JSON, or `text`."""
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    elif isinstance(text, str):
        print(text)  # not through rich, which would wrap a path
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(text)


def tell(lines: Iterable[str]) -> None:
    """Prints lines to stderr."""
    for line in lines:
        console.print(line, markup=False, highlight=False)


def warn(lines: Iterable[str]) -> None:
    """Prints warnings to stderr."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow", markup=False)


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr, hidden if stderr is not a terminal."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def show_progress(label: str, steps: Generator[tuple[int, int], None, T]) -> T:
    """Shows the yielded (done, of) as a progress bar and returns what `steps` returns."""
    with bar() as progress:
        task = progress.add_task(label, total=None)
        stream = Stream(steps)
        for done, of in stream:
            progress.update(task, completed=done, total=of)
        return stream.result


def show_terms(pieces: Generator[str, None, T]) -> T:
    """Shows terms while a proposer writes them and returns its answer. Ctrl-C cancels the request."""
    from crce.proposers.offers import parse_terms

    text, shown = "", 0
    stream = Stream(pieces)
    with closing(pieces):
        for piece in stream:
            text += piece
            for term in parse_terms(text)[shown:]:
                console.print(f"  {term}", markup=False, soft_wrap=True)
                shown += 1
    return stream.result


def watch(events: "Iterable[JobEvent]") -> None:
    """Shows the events of several runs in turn."""
    with bar() as progress:
        task = progress.add_task("loading the model", total=None)
        for event in events:
            _show_event(progress, task, event.event, f"{event.concept}, {event.method}: ")


def follow(run: Run, events: Iterator[Event]) -> None:
    """Shows a run until it ends. Raises CrceError if it fails; exits with code 130 if it is stopped.

    Ctrl-C stops after the current step, a second Ctrl-C immediately. Either way the run can be resumed.
    """
    last: Event | None = None
    with _stop_on_ctrl_c(run), bar() as progress:
        task = progress.add_task("loading the model", total=None)
        for last in events:
            _show_event(progress, task, last)
    if isinstance(last, FailedEvent):
        raise CrceError(last.message)
    if isinstance(last, StoppedEvent):
        console.print(f"stopped; step {last.step} is kept. Continue with --resume, or from the app.")
        raise typer.Exit(130)


def _show_event(progress: Progress, task: TaskID, event: Event, name: str = "") -> None:
    if isinstance(event, PhaseEvent | StepEvent):
        losses = event.losses if isinstance(event, StepEvent) else {}
        label = name + PHASES[event.progress.phase] + "".join(f"  {key} {loss:.4f}" for key, loss in losses.items())
        label += f"  {event.progress.note}" if event.progress.note else ""
        progress.update(task, description=label, completed=event.progress.done, total=event.of)
    if isinstance(event, NoteEvent):
        console.print(event.text, markup=False, soft_wrap=True)
    if isinstance(event, NotJudgedEvent):
        console.print(f"not judged: {event.reason}", markup=False, soft_wrap=True)


@contextmanager
def _stop_on_ctrl_c(run: Run) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)

    def stop(*_) -> None:
        (run.dir / "stop").touch()
        signal.signal(signal.SIGINT, before)
        console.print("stopping after this step; press Ctrl-C again to stop now")

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def table(headings: list[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table without borders."""
    result = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        result.add_row(*(Text(str(cell)) for cell in row))
    return result


def accuracy_table(reports: list[Report]) -> Table:
    """Each concept's five accuracies with n, interval, and the base model's value on the same seeds; beside them the
    strict ones, by the judge's first guess."""
    rows = [
        (report.concept, METRICS[name].name, *_rates(m), *_rates(report.strict.get(name)), m.n)
        for report in reports
        for name, m in report.metrics.items()
    ]
    plain = ["after", "95 % interval", "before"]
    return table(["", "", *plain, *(f"strict {head}" for head in plain), "pictures"], rows)


def _rates(m: Accuracy | None) -> tuple[str, ...]:
    if m is None:
        return ("", "", "")
    return f"{100 * m.rate:.0f} %", f"{100 * m.low:.0f} to {100 * m.high:.0f} %", f"{100 * m.base_rate:.0f} %"
