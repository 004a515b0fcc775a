"""The README's tables (methods × concepts): measures them, stores reports, and renders them."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from crce import runs
from crce.base_version import check_version, find_digest
from crce.catalogue import METHOD_FACTS
from crce.errors import CrceError
from crce.evaluation.accuracies import are_strict, difference, seed_of, table
from crce.evaluation.metrics import HEADS
from crce.evaluation.report import Report, read_report, report_to_dict
from crce.files import RESULTS, ROOT, read_json, write_atomic
from crce.runs import Event
from crce.runs.events import FailedEvent, StoppedEvent
from crce.runs.execute import execute
from crce.runs.models import Models

REPORTS = RESULTS / "table"
COSTS = RESULTS / "methods" / "seconds.json"
README = ROOT / "README.md"
TABLE_METHODS = ("esd-x-strict", "crce-sphere", "crce-fixed", "crce", "crce-plus")
# Pairs of them that are compared: the paper's claims, then what ours adds.
COMPARED = (
    ("crce", "esd-x-strict"),
    ("crce", "crce-sphere"),
    ("crce", "crce-fixed"),
    ("crce-plus", "crce"),
    ("crce-plus", "esd-x-strict"),
)
CLOSED = ("crce-null", "crce-uce")  # ours, each compared with the paper's CRCE
STRICT_NOTE = (
    " A picture counts if the judge's first guess among all its drawings is the thing asked for, or of its family; "
    "H is of these strict values. After the slash: the share of pictures to which the judge says yes."
)
UNMEASURED = "Not measured with these weights yet: run `python -m crce measure`, then `python -m crce table`.\n"


@dataclass(frozen=True)
class JobEvent:
    """An event of one of several jobs."""

    concept: str
    method: str
    event: Event


def measure(jobs: list[runs.Job], images: int, folder: Path, brief: bool = False) -> Iterator[JobEvent]:
    """Runs and evaluates every job (one concept, one method, one training seed) and stores its report in `folder`.

    images: pictures per prompt. brief: keep the figures alone, without the answers for each term.
    Existing reports are not measured again, so a stopped measurement can be continued.
    Yields the runs' events. Raises CrceError for a run that fails, and for a report of another version of the base.
    """
    models = Models()
    for job in jobs:
        target = folder / f"{job.spec.slug}-{job.config.label.replace(' ', '-')}-seed-{job.config.seed}.json"
        if target.exists():
            check_version(f"The report {target}", job.base, read_report(target).base_digest, find_digest(job.base))
        else:
            yield from _measure_job(job, images, target, models, brief)


def _measure_job(job: runs.Job, images: int, target: Path, models: Models, brief: bool) -> Iterator[JobEvent]:
    work = target.parent / f".{target.stem}"
    run = runs.open_run(work) if work.exists() else runs.create(job, work, queued=False)
    run.request_evaluate(images)
    yield from execute_job(run, models)
    if run.not_judged:
        raise CrceError(f"{job.spec.name} with {job.config.label}: {run.not_judged}")
    # On one line: there are many reports, and people read the tables instead.
    report = read_report(run.dir / "report.json")
    kept = replace(report, terms=()) if brief else report
    write_atomic(target, json.dumps(report_to_dict(kept), ensure_ascii=False) + "\n")
    shutil.rmtree(work)


def execute_job(run: runs.Run, models: Models) -> Iterator[JobEvent]:
    """Executes a run and yields its events with concept and method. Raises CrceError if it fails or is stopped."""
    concept, method = run.job.spec.name, run.job.config.label
    for event in execute(run, models):
        yield JobEvent(concept, method, event)
        if isinstance(event, FailedEvent | StoppedEvent):
            reason = event.message if isinstance(event, FailedEvent) else "stopped; repeat the command to continue"
            raise CrceError(f"{concept} with {method}: {reason}")


def find_reports(folder: Path) -> list[Path]:
    """The reports in the folder and those below it, in a fixed order; not the work of a measurement that goes on."""
    found = folder.rglob("*.json")
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))


def load_reports(folder: Path = REPORTS) -> list[Report]:
    """The committed reports in the table's order."""
    found = [read_report(path) for path in sorted(folder.glob("*.json"))]
    order = [*TABLE_METHODS, *(method for method in METHOD_FACTS if method not in TABLE_METHODS)]
    return sorted(found, key=lambda r: (order.index(r.method), r.concept, seed_of(r)))


def check_reports(folder: Path = RESULTS) -> None:
    """Raises CrceError for a report below the folder that belongs to another version of its base than the one here."""
    for path in find_reports(folder):
        facts = read_json(path)
        if isinstance(facts, dict) and facts.get("base_digest"):
            what = f"The report {path.relative_to(folder)}"
            check_version(what, facts["base"], facts["base_digest"], find_digest(facts["base"]))


def render(found: list[Report], costs: dict | None = None) -> str:
    """The main comparison, then all methods. costs: seconds.json of `contact_sheet`."""
    main = [r for r in found if r.method in TABLE_METHODS]
    if not main:
        return UNMEASURED
    return _render_main(main) + (_render_all(found, costs) if len(main) < len(found) else "")


def _render_all(found: list[Report], costs: dict | None) -> str:
    """A row for each method that was measured on the concepts on which most were."""
    found = _keep_usual(found)
    methods, concepts = {r.method for r in found}, sorted({r.concept for r in found})
    seconds = (costs or {}).get("methods", {})
    missing = ", ".join(sorted(METHOD_FACTS.keys() - methods))
    lines = [
        f"\nEvery method over {len(concepts)} of these concepts ({', '.join(concepts)}) "
        f"{count_seeds(found)}{f' (not measured on all of them: {missing})' if missing else ''}:\n",
        table(found, seconds),
    ]
    if costs:
        lines.append(
            f"CPU s: CPU time of one erasure of {costs['concept']}, all threads, without judging, {costs['machine']}.\n"
        )
    ours = [(method, "crce") for method in CLOSED if method in methods]
    if ours:
        lines += [
            f"Our closed forms compared with the paper's CRCE, {name_pairs(found)}:\n",
            render_differences(found, ours),
        ]
    return "\n".join(lines)


def keep_shared(found: list[Report]) -> list[Report]:
    """The reports on the concepts and training seeds that every method was measured on."""
    shared = set.intersection(*_list_measured(found).values())
    return [r for r in found if (r.concept, seed_of(r)) in shared]


def _keep_usual(found: list[Report]) -> list[Report]:
    """The reports on the concepts and seeds that the main methods and more than half of the others were measured on, of
    the methods that were measured on all of these: one more method with fewer concepts does not shrink the table."""
    measured = _list_measured(found)
    others = [pairs for method, pairs in measured.items() if method not in TABLE_METHODS]
    shared = set.intersection(*(pairs for method, pairs in measured.items() if method in TABLE_METHODS))
    usual = {pair for pair in shared if 2 * sum(pair in pairs for pairs in others) > len(others)}
    return [r for r in found if usual <= measured[r.method] and (r.concept, seed_of(r)) in usual]


def _list_measured(found: list[Report]) -> dict[str, set[tuple[str, int]]]:
    """The concepts and training seeds of each method's reports."""
    measured: dict[str, set[tuple[str, int]]] = {}
    for report in found:
        measured.setdefault(report.method, set()).add((report.concept, seed_of(report)))
    return measured


def _render_main(found: list[Report]) -> str:
    """The table, a note on how it was measured, and the paired differences."""
    concepts = sorted({r.concept for r in found})
    left_out = {r.concept: r.left_out for r in found if r.method == "crce"}.values()
    methods = {r.method for r in found}
    corefs, retains = sum(out.corefs for out in left_out), sum(out.retains for out in left_out)
    lines = [
        table(found),
        f"Mean over {len(concepts)} concepts ({', '.join(concepts)}) {count_seeds(found)}. "
        f"{count_pictures(found)} "
        "Only terms that the base model draws are counted, "
        f"which excludes {corefs} of all corefs and {retains} of all retains.{STRICT_NOTE * are_strict(found)}\n",
        f"Differences, {name_pairs(found)}; an interval that contains 0 shows no difference:\n",
        render_differences(found, [pair for pair in COMPARED if methods.issuperset(pair)]),
    ]
    return "\n".join(lines)


def count_pictures(found: list[Report]) -> str:
    """How many pictures the reports have, also where they differ."""
    counts = sorted({r.images for r in found})
    each, five = (" or ".join(str(factor * count) for count in counts) for factor in (1, 5))
    return f"Pictures per prompt: {each} ({five} for Acc_U), seeds from 0."


def count_seeds(found: list[Report]) -> str:
    """How many training seeds the reports have, and over what the intervals are."""
    seeds = sorted({seed_of(r) for r in found})
    if len(seeds) == 1:
        return "in %, with 95 % bootstrap intervals over concepts; one run each"
    runs = {(r.concept, r.method) for r in found}
    more = "each" if len(found) == len(runs) * len(seeds) else f"at most, {len(found)} runs"
    return f"and {len(seeds)} training seeds {more}, in %, with 95 % bootstrap intervals over concepts and seeds"


def name_pairs(found: list[Report]) -> str:
    return "paired by concept and seed" if len({seed_of(r) for r in found}) > 1 else "paired by concept"


def render_differences(found: list[Report], pairs: list[tuple[str, str]]) -> str:
    """A row for each pair of methods: the first minus the second."""
    head = [f"| | {' | '.join(HEADS.values())} |", "|---|" + "---|" * len(HEADS)]
    return "\n".join([*head, *(_render_difference(found, *pair) for pair in pairs)]) + "\n"


def _render_difference(found: list[Report], method: str, other: str) -> str:
    cells = [tuple(100 * v for v in difference(found, metric, method, other)) for metric in HEADS]
    shown = " | ".join(f"{m:+.1f} ({low:+.1f} to {high:+.1f})" for m, low, high in cells)
    return f"| {method} − {other} | {shown} |"


def write_table(readme: Path = README, folder: Path = REPORTS) -> None:
    """Replaces the tables in the README."""
    rendered = render(load_reports(folder), read_json(COSTS) if COSTS.exists() else None)
    write_atomic(readme, insert_table(readme.read_text(encoding="utf-8"), rendered))


def insert_table(text: str, rendered: str) -> str:
    """Replaces the text between the table markers. Raises CrceError if they are missing."""
    start, end = "<!-- table: python -m crce table -->\n", "<!-- /table -->"
    if start not in text or end not in text:
        raise CrceError(f"The text has no markers for the table. Add the lines {start.strip()!r} and {end!r}.")
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}{rendered}{end}{after}"
