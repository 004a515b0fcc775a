"""From verdicts to figures: the paper's five accuracies, their intervals, and tables over concepts. No torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.evaluation.metrics import HEADS, METRICS
from crce.evaluation.questions import Answers
from crce.evaluation.report import Accuracy, Drift, LeftOut, Report

RESAMPLES = 10_000
SURVIVES = 0.9  # of the base's pictures of the target: from here on an erasure has no effect
LOST = 0.5  # of the base's pictures of held-out retains: below this an erasure takes everything
UNLIKE = 0.2  # a first guess below this probability is a guess at a picture unlike everything that the judge knows


def compute_accuracies(answers: Sequence[Answers], strict: bool = False) -> dict[str, Accuracy]:
    """The five accuracies over the covered terms, by the keys of METRICS.

    strict: count the pictures where the judge's first guess is what was asked for, or of its family. Answers without
    a first guess have no strict accuracies. An accuracy without a single covered term is left out rather than called 0.
    """
    counted = [a for a in answers if a.covered is not False]
    if strict and not all(a.strict for a in counted):
        return {}
    groups = {key: [a for a in counted if (a.kind, a.split) == (m.kind, m.split)] for key, m in METRICS.items()}
    return {key: _accuracy([(a.strict, a.base_strict) if strict else (a.yes, a.base_yes) for a in group])
            for key, group in groups.items() if group}  # fmt: skip


def _accuracy(group: list[tuple[tuple[bool, ...], tuple[bool, ...]]]) -> Accuracy:
    """group: for each term which pictures count, after the erasure and of the base."""
    yes, base = sum(sum(after) for after, _ in group), sum(sum(before) for _, before in group)
    n = sum(len(after) for after, _ in group)
    low, high = wilson_interval(yes, n)
    return Accuracy(yes, n, yes / n, low, high, base / n, yes / base if base else None, len(group))


def wilson_interval(yes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the rate yes / n."""
    interval = stats.binomtest(yes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def harmonic_mean(accuracies: Mapping[str, Accuracy]) -> float | None:
    """H of one model: the harmonic mean of (1 − Acc_U, 1 − Acc_C test, Acc_R test); 0 if any of them is 0.

    None where one of the three is missing.
    """
    if not {"acc_u", "acc_c_test", "acc_r_test"} <= accuracies.keys():
        return None
    rates = {key: accuracy.rate for key, accuracy in accuracies.items()}
    parts = [1 - rates["acc_u"], 1 - rates["acc_c_test"], rates["acc_r_test"]]
    return float(stats.hmean(np.clip(parts, 0, None)))


def summarise(concept: ConceptSpec, answers: Sequence[Answers], /, **facts: Any) -> Report:
    """The report of one concept: its answers, the figures, and how many terms were left out.

    facts: further fields of `Report`, such as the method and its settings.
    """
    found, strict = compute_accuracies(answers), compute_accuracies(answers, strict=True)
    left_out = LeftOut(len(concept.corefs) - _count(answers, "coref"), len(concept.retains) - _count(answers, "retain"))
    counted = strict or found
    return Report(found, strict, concept.name, concept.digest, harmonic_mean(counted), left_out, find_warning(counted),
                  drift=measure_drift(answers), terms=tuple(answers), **facts)  # fmt: skip


def measure_drift(answers: Sequence[Answers]) -> Drift:
    """How far the pictures went: of the target from all that the judge knows, of covered retains from the base's."""
    targets = [a for a in answers if a.kind == "target"]
    moved = [a.moved for a in answers if a.kind == "retain" and a.covered is not False and a.moved is not None]
    return Drift(
        _share_unlike([p for a in targets for p in a.top]),
        _share_unlike([p for a in targets for p in a.base_top]),
        round(sum(moved) / len(moved), 4) if moved else None,
    )


def _share_unlike(tops: list[float]) -> float | None:
    return sum(p < UNLIKE for p in tops) / len(tops) if tops else None


def find_warning(found: Mapping[str, Accuracy]) -> str:
    """What nobody should overlook: hardly anything is erased, or the neighbours are erased too. Else an empty text."""
    target, neighbours = found.get("acc_u"), found.get("acc_r_test")
    if target and target.ratio is not None and target.ratio >= SURVIVES:
        return (f"Hardly anything is erased: {target.yes} of {target.n} pictures still show it. "
                "Train longer or with a higher learning rate.")  # fmt: skip
    if neighbours and neighbours.ratio is not None and neighbours.ratio < LOST:
        return (f"The neighbours went too: {neighbours.yes} of {neighbours.n} held-out pictures still show theirs. "
                "Train more gently, or add retains.")  # fmt: skip
    return ""


def _count(answers: Sequence[Answers], kind: str) -> int:
    """Terms of a list that count: the judge was asked, and the base draws them as far as is known."""
    return sum(a.kind == kind and a.covered is not False for a in answers)


def base_report(report: Report) -> Report:
    """The same report as if nothing had been erased: the base's row in a table."""
    terms = [replace(term, yes=term.base_yes, strict=term.base_strict) for term in report.terms]
    found, strict = compute_accuracies(terms), compute_accuracies(terms, strict=True)
    return replace(report, method="base", metrics=found, strict=strict, h=harmonic_mean(strict or found))


def mean_interval(values: Iterable[float | Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over concepts and its 95 % bootstrap interval (low, high).

    values: for each concept its value, or one value for each training seed; every concept counts the same. Concepts are
    resampled, and within each drawn concept its seeds; not images: those of one prompt are not independent. For a
    difference of methods give the paired differences. Raises CrceError for fewer than two concepts.
    """
    groups = [np.atleast_1d(np.asarray(value, dtype=float)) for value in values]
    if len(groups) < 2:
        raise CrceError(f"An interval over concepts needs at least 2 of them, not {len(groups)}.")
    counts = np.array([len(group) for group in groups])
    padded = np.stack([np.pad(group, (0, counts.max() - len(group))) for group in groups])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(groups), size=(RESAMPLES, len(groups)))[..., None]
    # As many seeds as the drawn concept has; what stands beyond them is not counted.
    places = (rng.random((*drawn.shape[:2], counts.max())) * counts[drawn]).astype(int)
    counted = np.arange(counts.max()) < counts[drawn]
    means = ((padded[drawn, places] * counted).sum(axis=2) / counts[drawn[..., 0]]).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean([group.mean() for group in groups])), float(low), float(high)


def by_concept(reports: Iterable[Report], value: Callable[[Report], float | None]) -> dict[str, dict[int, float]]:
    """For each concept the value by training seed; without the reports that have none."""
    found: dict[str, dict[int, float]] = {}
    for report in reports:
        if (each := value(report)) is not None:
            found.setdefault(report.concept, {})[seed_of(report)] = each
    return found


def seed_of(report: Report) -> int:
    """The training seed."""
    return int(report.config.get("seed", 0))


def mean_over(reports: Iterable[Report], value: Callable[[Report], float | None]) -> tuple[float, float, float]:
    """`mean_interval` of a value over concepts and seeds."""
    return mean_interval([list(seeds.values()) for seeds in by_concept(reports, value).values()])


def paired_difference(
    reports: Sequence[Report], value: Callable[[Report], float | None], method: str, other: str
) -> tuple[float, float, float]:
    """`mean_interval` of method − other, paired by concept and seed. Raises CrceError for fewer than two concepts that
    both have a seed of."""
    check_one_base(reports)
    ours, theirs = (by_concept((r for r in reports if r.method == m), value) for m in (method, other))
    pairs = {
        concept: [ours[concept][s] - theirs[concept][s] for s in sorted(ours[concept].keys() & theirs[concept].keys())]
        for concept in sorted(ours.keys() & theirs.keys())
    }
    return mean_interval([differences for differences in pairs.values() if differences])


def check_one_base(reports: Iterable[Report]) -> None:
    """Raises CrceError for reports of different versions of a base; one that records no version is taken to fit."""
    versions = sorted({report.base_digest[:8] for report in reports if report.base_digest})
    if len(versions) > 1:
        raise CrceError(f"These reports are of different versions of the base ({', '.join(versions)}) and cannot be "
                        "compared. Measure all of them on one.")  # fmt: skip


def are_strict(reports: Iterable[Report]) -> bool:
    """Whether all of them have the strict accuracies; only then are these compared."""
    return all(report.strict for report in reports)


def table(reports: Sequence[Report], seconds: Mapping[str, float] | None = None) -> str:
    """Methods × (the five accuracies, H) as Markdown: means over the concepts, in % with intervals.

    If all reports have the strict accuracies, these stand in the table, and the plain ones beside them.
    seconds: what each method costs, for a further column. Raises CrceError for a method with fewer than two concepts.
    """
    check_one_base(reports)
    methods = {m: [r for r in reports if r.method == m] for m in dict.fromkeys(r.method for r in reports)}
    first = next(iter(methods.values()), [])
    methods = {"base": [base_report(r) for r in first], **methods}
    heads = [*HEADS.values(), *(["CPU s"] if seconds else [])]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    strict = are_strict(reports)
    return "\n".join(lines + [_row(method, rows, seconds, strict) for method, rows in methods.items()]) + "\n"


def _row(method: str, reports: list[Report], seconds: Mapping[str, float] | None, strict: bool) -> str:
    cells = [_cell(reports, key, strict) for key in HEADS]
    if seconds:
        cells.append(f"{seconds[method]:.1f}" if method in seconds else "")
    return f"| {method} | {' | '.join(cells)} |"


def _cell(reports: list[Report], key: str, strict: bool) -> str:
    """ "2.3 (0.8 to 4.0)", and with strict accuracies the plain one after a slash."""
    mean, low, high = mean_over(reports, lambda r: _value(r, key, strict))
    plain = mean_over(reports, lambda r: _value(r, key, False))[0] if strict and key != "h" else None
    beside = "" if plain is None else f" / {100 * plain:.1f}"
    return f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f}){beside}"


def difference(reports: Sequence[Report], metric: str, method: str, other: str) -> tuple[float, float, float]:
    """`paired_difference` of a metric.

    metric: a key of HEADS; of the strict accuracies if all reports have them. Raises CrceError for fewer than two such
    concepts.
    """
    strict = are_strict(reports)
    return paired_difference(reports, lambda r: _value(r, metric, strict), method, other)


def _value(report: Report, metric: str, strict: bool) -> float:
    """Raises CrceError where the report lacks it."""
    found = report.strict if strict else report.metrics
    if metric != "h":
        return found[metric].rate
    h = harmonic_mean(found)
    if h is None:
        raise CrceError(f"The report of {report.concept!r} with {report.method} has no H: an accuracy is missing.")
    return h
