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

_YES_OR_NO = ("yes", "base_yes", "strict", "base_strict")


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
class Drift:
    """How far an erasure went from what the base draws; None where it was not measured.

    unlike: the share of the target's pictures that are unlike everything the judge knows: the probability of its first
    guess is below `accuracies.UNLIKE`. base_unlike: the same of the base's pictures. moved: the retains' pictures
    before and after on the same seeds, their mean absolute difference in 0 … 1 at 64×64 pixels.
    """

    unlike: float | None = None
    base_unlike: float | None = None
    moved: float | None = None


@dataclass(frozen=True)
class Report:
    """The accuracies of one concept, by the keys of METRICS, and what they were measured with.

    strict: the same accuracies by the judge's first guess; empty in reports of versions that did not ask for it.
    h: the harmonic mean of the strict ones, or of `metrics` where there are none; None where an accuracy is missing.
    drift: how far the pictures went from those of the base. terms: the judge's answers in order.
    base_digest: the version of the base; empty where it was not recorded. steps: training steps that were taken.
    images: pictures per term. config, spec: as in job.json, in the words of the version that wrote them. seconds: the
    evaluation took. judge: its name; judged_by: what else is to say of it; usage: what it cost, if it is paid for.
    agreement: how far a person agrees with the judge. also: a report for each further concept of the run. Reports of
    earlier versions lack some of it.
    """

    metrics: dict[str, Accuracy]
    strict: dict[str, Accuracy] = field(default_factory=dict)
    concept: str = ""
    digest: str = ""
    h: float | None = None
    left_out: LeftOut = LeftOut()
    warning: str = ""
    base: str = ""
    base_digest: str = ""
    method: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    ask: str = "target"
    judge: str = "embedded"
    judged_by: JudgeFacts | None = None
    usage: Usage | None = None
    seconds: float | None = None
    dtype: str = ""
    machine: str = ""
    drift: Drift = Drift()
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
        report = parse(Report, _restore(files.read_json(path)), str(path))
        _ = report.judged, [each.judged for each in report.also]  # as many answers as seeds
        return report
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CrceError(f"{path} cannot be read: {error}.") from None


def write_report(path: Path, report: Report) -> None:
    """Raises OSError."""
    files.write_json(path, report_to_dict(report))


def report_to_dict(report: Report) -> dict[str, Any]:
    """The report as it is written: yes and no of many pictures as one text of 1 and 0."""
    return {
        **asdict(report),
        "terms": [_pack(vars(term)) for term in report.terms],
        "also": [report_to_dict(each) for each in report.also],
    }


def _pack(term: dict[str, Any]) -> dict[str, Any]:
    return {**term, **{name: "".join(map(str, map(int, term[name]))) for name in _YES_OR_NO}}


def _unpack(term: dict[str, Any]) -> dict[str, Any]:
    """Earlier versions wrote lists of true and false."""
    packed = [name for name in _YES_OR_NO if isinstance(term.get(name), str)]
    return {**term, **{name: [digit == "1" for digit in term[name]] for name in packed}}


def _restore(facts: Any) -> Any:
    """The facts of a file in today's form. Earlier versions wrote `alarm` for `warning`."""
    if not isinstance(facts, dict):
        return facts
    terms = [_unpack(term) for term in facts.get("terms", ())]
    also = [_restore(each) for each in facts.get("also", ())]
    return {"warning": facts.get("alarm", ""), **facts, "terms": terms, "also": also}
