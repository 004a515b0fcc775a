"""report.json: what was measured of an erased concept. No torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crce import files
from crce.errors import CrceError
from crce.evaluation.agreement import Agreement
from crce.evaluation.questions import DISTRACTOR, Answers
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
    def distractors(self) -> tuple[Answers, ...]:
        """Pictures of something else, of which the judge should say no."""
        return tuple(term for term in self.terms if term.kind == DISTRACTOR)

    @property
    def never_drawn(self) -> list[str]:
        """Corefs of which the judge sees nothing in the base's own pictures: that they are gone proves nothing."""
        return [term.text for term in self.terms if term.kind == "coref" and term.seeds and not any(term.base_yes)]


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
