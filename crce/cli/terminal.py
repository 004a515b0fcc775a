"""Output of the command line: progress goes to stderr, results to stdout."""

import json
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from crce.errors import CrceError
from crce.evaluation.questions import METRICS
from crce.runs import PHASES, Run

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


def warn(lines: Iterable[str]) -> None:
    """Prints warnings to stderr."""
    for line in lines:
        console.print(f"warning: {line}", style="yellow")


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr, hidden if stderr is not a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def show_progress(label: str, steps: Generator[tuple[int, int], None, T]) -> T:
    """Shows the yielded (done, of) as a progress bar and returns what `steps` returns."""
    with bar() as progress:
        task = progress.add_task(label, total=None)
        while True:
            try:
                done, of = next(steps)
            except StopIteration as end:
                return end.value
            progress.update(task, completed=done, total=of)


def show_terms(pieces: Generator[str, None, T]) -> T:
    """Shows terms while a proposer writes them and returns its answer. Ctrl-C cancels the request."""
    from crce.proposers.offers import parse_terms

    text, shown = "", 0
    with closing(pieces):
        while True:
            try:
                text += next(pieces)
            except StopIteration as end:
                return end.value
            for term in parse_terms(text)[shown:]:
                console.print(f"  {term}", markup=False, soft_wrap=True)
                shown += 1


def watch(events: Iterable[dict]) -> None:
    """Shows the events of several runs in turn."""
    with bar() as progress:
        task = progress.add_task("loading the model", total=None)
        for event in events:
            _show_event(progress, task, event, f"{event['concept']}, {event['method']}: ")


def follow(run: Run, events: Iterator[dict]) -> None:
    """Shows a run until it ends. Raises CrceError if it fails; exits with code 130 if it is stopped.

    Ctrl-C stops after the current step, a second Ctrl-C immediately. Either way the run can be resumed.
    """
    last: dict = {}
    with _stop_on_ctrl_c(run), bar() as progress:
        task = progress.add_task("loading the model", total=None)
        for last in events:
            _show_event(progress, task, last)
    if last["kind"] == "failed":
        raise CrceError(last["message"])
    if last["kind"] == "stopped":
        console.print(
            f"stopped; step {last['step']} is kept. Continue with the same command and --resume, or from the app."
        )
        raise typer.Exit(130)


def _show_event(progress: Progress, task: TaskID, event: dict, name: str = "") -> None:
    if event["kind"] in ("phase", "step"):
        done = event["step"] if event["kind"] == "step" else event["done"]
        losses = "".join(f"  {name} {loss:.4f}" for name, loss in event.get("losses", {}).items())
        label = name + PHASES[event.get("phase", "train")] + losses
        progress.update(task, description=label, completed=done, total=event["of"])


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


def accuracy_table(reports: list[dict]) -> Table:
    """Each concept's five accuracies with n, interval, and the base model's value on the same seeds."""
    rows = [
        (
            report["concept"],
            METRICS[name].name,
            f"{100 * m['rate']:.0f} %",
            f"{100 * m['low']:.0f} to {100 * m['high']:.0f} %",
            f"{100 * m['base_rate']:.0f} %",
            m["n"],
        )
        for report in reports
        for name, m in report["metrics"].items()
    ]
    return table(["", "", "after", "95 % interval", "before", "pictures"], rows)
