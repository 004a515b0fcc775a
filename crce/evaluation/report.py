"""report.json: what was measured of an erased concept. No torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crce import files
from crce.errors import CrceError
from crce.evaluation.agreement import Agreement, Picture
from crce.evaluation.questions import DISTRACTOR, Answers, Calibration
from crce.judges.judge import JudgeFacts, Usage
from crce.records import parse


@dataclass(frozen=True)
class Accuracy:
    """One accuracy: `yes` of `n` pictures of `terms` terms, as a rate with its Wilson 95 % interval.

    base_rate: the same of the base on the same seeds. ratio: yes over the base's yes; None where that is 0.
    """

    yes: int
    n: int
    rate: float
    low: float
    high: float
    base_rate: float
    ratio: float | None
    terms: int = 0


@dataclass(frozen=True)
class LeftOut:
    """Terms that are not counted: the base does not draw them, or the judge does not know them."""

    corefs: int = 0
    retains: int = 0


@dataclass(frozen=True)
class Report:
    """The accuracies of one concept, by the keys of METRICS, and what they were measured with.

    h: the harmonic mean; None where one of its accuracies is missing. terms: the judge's answers in order.
    images: pictures per term. config, spec: as in job.json, in the words of the version that wrote them. seconds: the
    evaluation took. judge: its name; judged_by: what else is to say of it; usage: what it cost, if it is paid for.
    agreement: how far a person agrees with the judge. also: a report for each further concept of the run. Reports of
    earlier versions lack some of it.
    """

    metrics: dict[str, Accuracy]
    concept: str = ""
    digest: str = ""
    h: float | None = None
    left_out: LeftOut = LeftOut()
    warning: str = ""
    base: str = ""
    method: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    images: int = 0
    ask: str = "target"
    judge: str = "embedded"
    judged_by: JudgeFacts | None = None
    usage: Usage | None = None
    seconds: float | None = None
    dtype: str = ""
    machine: str = ""
    terms: tuple[Answers, ...] = ()
    agreement: Agreement | None = None
    also: tuple["Report", ...] = ()

    @property
    def judged(self) -> dict[Picture, bool]:
        """The judge's verdicts by picture."""
        return {
            (term.text, term.asked, seed, after): yes
            for term in self.terms
            for after, answers in ((False, term.base_yes), (True, term.yes))
            for seed, yes in zip(term.seeds, answers, strict=True)
        }

    @property
    def calibration(self) -> list[Calibration]:
        """How often the judge says yes to the base's own pictures of each term, and of a distractor."""
        return [Calibration(t.kind, t.text, t.asked, sum(t.base_yes), len(t.base_yes)) for t in self.terms]

    @property
    def doubts(self) -> list[str]:
        """What in the report proves nothing, by its calibration."""
        flagged = [row for row in self.calibration if row.warning and row.kind in ("coref", DISTRACTOR)]
        names = ", ".join(row.text for row in flagged if row.kind == "coref")
        lines = [f"never drawn by the base, so that it is gone proves nothing: {names}"] if names else []
        return lines + [
            f"the judge sees {row.asked!r} in {row.yes} of {row.of} pictures of {row.text!r}"
            for row in flagged
            if row.kind == DISTRACTOR
        ]


def read_report(path: Path) -> Report:
    """Raises CrceError for a file that is not there or is no report."""
    try:
        return parse(Report, _renamed(files.read_json(path)), str(path))
    except (OSError, ValueError) as error:
        raise CrceError(f"{path} cannot be read: {error}.") from None


def write_report(path: Path, report: Report) -> None:
    """Raises OSError."""
    files.write_json(path, asdict(report))


def _renamed(facts: Any) -> Any:
    """Earlier versions wrote `alarm` for `warning`."""
    if not isinstance(facts, dict):
        return facts
    also = [_renamed(each) for each in facts.get("also", ())]
    return {"warning": facts.get("alarm", ""), **facts, "also": also}
