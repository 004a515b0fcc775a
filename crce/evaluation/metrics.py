"""From verdicts to figures: the paper's five accuracies, their intervals, and tables over concepts. No torch."""

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
from scipy import stats

from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.evaluation.questions import METRICS, Answers

# The columns of a table.
HEADS = {**{key: metric.head for key, metric in METRICS.items()}, "h": "H ↑"}
RESAMPLES = 10_000
SURVIVES = 0.9  # of the base's pictures of the target: an erasure without effect
LOST = 0.5  # of the base's pictures of held-out retains: an erasure of everything


def metrics(answers: list[Answers]) -> dict[str, dict]:
    """The five accuracies over the terms that count, with n, Wilson 95 % interval and the ratio to the base.

    A metric without a single covered term is left out rather than called 0.
    """
    counted = [a for a in answers if a.covered is not False]
    groups = {key: [a for a in counted if (a.kind, a.split) == (m.kind, m.split)] for key, m in METRICS.items()}
    return {key: _rate(group) for key, group in groups.items() if group}


def _rate(group: list[Answers]) -> dict:
    yes, base = sum(sum(a.yes) for a in group), sum(sum(a.base_yes) for a in group)
    n = sum(len(a.yes) for a in group)
    low, high = wilson(yes, n)
    return {"yes": yes, "n": n, "terms": len(group), "rate": yes / n, "low": low, "high": high,
            "base_rate": base / n, "ratio": yes / base if base else None}  # fmt: skip


def wilson(yes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    interval = stats.binomtest(yes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def harmonic(rates: dict[str, float]) -> float:
    """H of one model: the harmonic mean of (1 − Acc_U, 1 − Acc_C test, Acc_R test). 0 if any of them is 0."""
    parts = [1 - rates["acc_u"], 1 - rates["acc_c_test"], rates["acc_r_test"]]
    return float(stats.hmean(np.clip(parts, 0, None)))


def summarise(spec: ConceptSpec, answers: list[Answers], facts: dict) -> dict:
    """report.json: who was asked what, the figures, and how many terms were left out."""
    found = metrics(answers)
    rates = {name: figure["rate"] for name, figure in found.items()}
    whole = {"acc_u", "acc_c_test", "acc_r_test"} <= rates.keys()
    left_out = {f"{kind}s": len(getattr(spec, f"{kind}s")) - _counted(answers, kind) for kind in ("coref", "retain")}
    return {**facts, "concept": spec.name, "digest": spec.digest, "metrics": found,
            "h": harmonic(rates) if whole else None, "left_out": left_out, "alarm": alarm(found),
            "terms": [asdict(a) for a in answers]}  # fmt: skip


def alarm(found: dict[str, dict]) -> str:
    """What nobody should overlook, or nothing: hardly anything is gone, or the neighbours are gone as well."""
    target, kept = found.get("acc_u", {}), found.get("acc_r_test", {})
    if (target.get("ratio") or 0) >= SURVIVES:
        return (f"Hardly anything is erased: {target['yes']} of {target['n']} pictures still show it. "
                "Train longer or with a higher learning rate.")  # fmt: skip
    if kept and kept["ratio"] is not None and kept["ratio"] < LOST:
        return (f"The neighbours went too: {kept['yes']} of {kept['n']} held-out pictures still show theirs. "
                "Train more gently, or add retains.")  # fmt: skip
    return ""


def _counted(answers: list[Answers], kind: str) -> int:
    """Terms of a list that count: asked at all, and not found to be beyond the base."""
    return sum(a.kind == kind and a.covered is not False for a in answers)


def base_report(report: dict) -> dict:
    """The same report as if nothing had been erased: its row in a table."""
    answers = [Answers(**{**term, "yes": term["base_yes"]}) for term in report["terms"]]
    found = metrics(answers)
    h = harmonic({name: figure["rate"] for name, figure in found.items()}) if report["h"] is not None else None
    return {**report, "method": "base", "metrics": found, "h": h}


def mean_interval(values: Iterable[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean over concepts with its bootstrap 95 % interval. Concepts are drawn, not images: the images of one
    prompt are not independent. For a difference of methods give the paired differences.

    Raises CrceError for fewer than two values.
    """
    values = np.asarray(list(values), dtype=float)
    if len(values) < 2:
        raise CrceError(f"An interval over concepts needs at least 2 of them, not {len(values)}.")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def table(reports: list[dict], seconds: dict[str, float] | None = None) -> str:
    """Methods × (the five accuracies, H) as Markdown: means over the concepts, in % with intervals.

    seconds: what each method costs, for a further column.
    """
    methods = {m: [r for r in reports if r["method"] == m] for m in dict.fromkeys(r["method"] for r in reports)}
    first = next(iter(methods.values()), [])
    methods = {"base": [base_report(r) for r in first], **methods}
    heads = [*HEADS.values(), *(["CPU s"] if seconds else [])]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    return "\n".join(lines + [_row(method, rows, seconds) for method, rows in methods.items()]) + "\n"


def _row(method: str, reports: list[dict], seconds: dict[str, float] | None) -> str:
    cells = [_cell([_value(r, name) for r in reports]) for name in HEADS]
    if seconds:
        cells.append(f"{seconds[method]:.1f}" if method in seconds else "")
    return f"| {method} | {' | '.join(cells)} |"


def _cell(values: list[float]) -> str:
    mean, low, high = (100 * v for v in mean_interval(values))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def difference(reports: list[dict], metric: str, method: str, other: str) -> tuple[float, float, float]:
    """Mean of method − other over the concepts that both have, with the paired bootstrap's interval."""
    rates = {m: {r["concept"]: _value(r, metric) for r in reports if r["method"] == m} for m in (method, other)}
    both = rates[method].keys() & rates[other].keys()
    return mean_interval(rates[method][c] - rates[other][c] for c in sorted(both))


def _value(report: dict, metric: str) -> float:
    return report["h"] if metric == "h" else report["metrics"][metric]["rate"]
