"""A self-contained HTML page of a measured run: pictures before and after on the same seeds, and the results."""

import base64
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crce import files
from crce.bases import public_name
from crce.catalogue import METHOD_FACTS
from crce.errors import CrceError
from crce.evaluation.metrics import METRICS
from crce.evaluation.questions import Answers
from crce.runs import Run
from crce.runs.execute import REPORT_SEEDS, picture_name

TEMPLATES = Path(__file__).parents[1] / "templates"
SECTIONS = {
    "target": "The concept",
    "coref": "Its corefs: other names for it, which should be erased too",
    "retain": "Its retains: similar concepts, which should be kept",
}


def write_page(run: Run, by_eye: Sequence[Answers] = ()) -> Path:
    """Writes report.html into the run's folder.

    by_eye: the terms whose pictures lie in the folder without a verdict (`draw_by_eye`), where the run has no report.
    Raises CrceError if there is neither.
    """
    report = run.report
    if not report and not by_eye:
        raise CrceError(f"The run {run.id} has not been measured. Run `python -m crce evaluate {run.id}` first.")
    listed = report.terms if report else by_eye
    terms = [{**vars(term), "pictures": _collect_pictures(run, number, term)} for number, term in enumerate(listed)]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("demo.html").render(
        job=run.job,
        base=public_name(run.job.base),
        method=METHOD_FACTS[run.job.config.method],
        report=report,
        why=run.not_judged,
        metrics=METRICS,
        sections={title: [term for term in terms if term["kind"] == kind] for kind, title in SECTIONS.items()},
    )
    path = run.dir / "report.html"
    files.write_atomic(path, page)
    return path


def _collect_pictures(run: Run, number: int, term: Answers) -> list[dict]:
    """For each seed: both pictures as data URLs, and the judge's verdicts; None where no judge was asked."""
    seen = zip_longest(term.seeds, term.base_yes, term.yes)
    return [
        {
            "seed": seed,
            "before": _encode(run, picture_name(term.kind, number, seed, "base-")),
            "after": _encode(run, picture_name(term.kind, number, seed)),
            "before_yes": before,
            "after_yes": after,
        }
        for seed, before, after in list(seen)[:REPORT_SEEDS]
    ]


def _encode(run: Run, name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode((run.dir / name).read_bytes()).decode()}"
