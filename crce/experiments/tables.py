"""The tables of the README: methods × concepts, measured once, kept as reports, written by a command."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crce import runs
from crce.catalogue import METHOD_FACTS
from crce.errors import CrceError
from crce.evaluation.metrics import HEADS, difference, table
from crce.evaluation.report import Report, read_report
from crce.files import RESULTS, ROOT, read_json, write_atomic
from crce.runs import Event
from crce.runs.events import FailedEvent, StoppedEvent
from crce.runs.execute import execute
from crce.runs.models import Models

REPORTS = RESULTS / "table"
COSTS = RESULTS / "methods" / "seconds.json"
README = ROOT / "README.md"
TABLE_METHODS = ("esd-x-strict", "crce-sphere", "crce-fixed", "crce")
OURS = ("crce-plus", "crce-null", "crce-uce")  # each against the paper's own
UNMEASURED = (
    "Not measured on these weights yet. `python -m crce measure` does, `python -m crce table` writes it here.\n"
)


@dataclass(frozen=True)
class JobEvent:
    """An event of one of several jobs."""

    concept: str
    method: str
    event: Event


def measure(jobs: list[runs.Job], images: int, folder: Path) -> Iterator[JobEvent]:
    """Does every job, one concept with one method each, and keeps its report.json in `folder`.

    What is there already is not run again, so a stopped measurement goes on where it was. Yields the runs' events.
    Raises CrceError for a run that failed.
    """
    models = Models()
    for job in jobs:
        target = folder / f"{job.spec.slug}-{job.config.label.replace(' ', '-')}.json"
        if not target.exists():
            yield from _measured(job, images, target, models)


def _measured(job: runs.Job, images: int, target: Path, models: Models) -> Iterator[JobEvent]:
    work = target.parent / f".{target.stem}"
    run = runs.open_run(work) if work.exists() else runs.create(job, work, queued=False)
    run.request_evaluate(images)
    yield from execute_job(run, models)
    # One line each: there are many of them, and a table is how they are read.
    report = asdict(read_report(run.dir / "report.json"))
    write_atomic(target, json.dumps(report, ensure_ascii=False) + "\n")
    shutil.rmtree(work)


def execute_job(run: runs.Run, models: Models) -> Iterator[JobEvent]:
    """The run's events, with its concept and method. Raises CrceError for one that fails or is stopped."""
    concept, method = run.job.spec.name, run.job.config.label
    for event in execute(run, models):
        yield JobEvent(concept, method, event)
        if isinstance(event, FailedEvent | StoppedEvent):
            reason = event.message if isinstance(event, FailedEvent) else "stopped; call again to go on"
            raise CrceError(f"{concept} with {method}: {reason}")


def reports(folder: Path = REPORTS) -> list[Report]:
    """The committed reports, in the order of the table."""
    found = [read_report(path) for path in sorted(folder.glob("*.json"))]
    order = [*TABLE_METHODS, *(method for method in METHOD_FACTS if method not in TABLE_METHODS)]
    return sorted(found, key=lambda r: (order.index(r.method), r.concept))


def render(found: list[Report], costs: dict | None = None) -> str:
    """The paper's own comparison, and then all methods. `costs`: seconds.json of `contact`."""
    paper = [r for r in found if r.method in TABLE_METHODS]
    if not paper:
        return UNMEASURED
    return _paper(paper) + (_every_method(found, costs) if len(paper) < len(found) else "")


def _every_method(found: list[Report], costs: dict | None) -> str:
    """A row for each method, over the concepts that all of them were measured on."""
    methods = {r.method for r in found}
    concepts = sorted(set.intersection(*({r.concept for r in found if r.method == m} for m in methods)))
    seconds = (costs or {}).get("methods", {})
    missing = ", ".join(sorted(METHOD_FACTS.keys() - methods))
    lines = [
        f"\nEvery method over {len(concepts)} of these concepts ({', '.join(concepts)}), in the same way"
        f"{f' (not measured: {missing})' if missing else ''}:\n",
        table([r for r in found if r.concept in concepts], seconds),
    ]
    if costs:
        lines.append(
            f"CPU s: one erasure of {costs['concept']} without the judging, all threads, {costs['machine']}.\n"
        )
    ours = [(method, "crce") for method in OURS if method in methods]
    if ours:
        lines += [
            "Ours against the paper's, paired by every concept that both were measured on:\n",
            differences(found, ours),
        ]
    return "\n".join(lines)


def _paper(found: list[Report]) -> str:
    """The table, what it was made of, and CRCE's paired differences to the other methods."""
    concepts = sorted({r.concept for r in found})
    left_out = [r.left_out for r in found if r.method == "crce"]
    corefs, retains = sum(out.corefs for out in left_out), sum(out.retains for out in left_out)
    lines = [
        table(found),
        f"Mean over {len(concepts)} concepts ({', '.join(concepts)}) in %, with the bootstrap's 95 % interval over "
        f"concepts; one run each. Pictures per prompt: {found[0].images} ({5 * found[0].images} for Acc_U), "
        "seeds from 0. "
        "Only terms that the base draws count; "
        f"left out are {corefs} of all corefs and {retains} of all retains.\n",
        "Differences, paired by concept; one whose interval holds 0 is not shown to be any:\n",
        differences(found, [("crce", method) for method in TABLE_METHODS if method != "crce"]),
    ]
    return "\n".join(lines)


def differences(found: list[Report], pairs: list[tuple[str, str]]) -> str:
    """A row for each pair of methods, the first minus the second."""
    head = [f"| | {' | '.join(HEADS.values())} |", "|---|" + "---|" * len(HEADS)]
    return "\n".join([*head, *(_difference(found, *pair) for pair in pairs)]) + "\n"


def _difference(found: list[Report], method: str, other: str) -> str:
    cells = [tuple(100 * v for v in difference(found, metric, method, other)) for metric in HEADS]
    shown = " | ".join(f"{m:+.1f} ({low:+.1f} to {high:+.1f})" for m, low, high in cells)
    return f"| {method} − {other} | {shown} |"


def write_table(readme: Path = README, folder: Path = REPORTS) -> None:
    """Puts the table between its marks in the README."""
    rendered = render(reports(folder), read_json(COSTS) if COSTS.exists() else None)
    write_atomic(readme, with_table(readme.read_text(encoding="utf-8"), rendered))


def with_table(text: str, rendered: str) -> str:
    """Raises CrceError if the marks are not there."""
    start, end = "<!-- table: python -m crce table -->\n", "<!-- /table -->"
    if start not in text or end not in text:
        raise CrceError(f"The text has no place for the table. Add the lines {start.strip()!r} and {end!r}.")
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}{rendered}{end}{after}"
