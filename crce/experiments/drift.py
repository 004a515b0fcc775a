"""docs/drift.md: whether erased pictures still look like something, and how far the retains moved."""

from collections.abc import Callable

from crce.config import config_from_dict
from crce.evaluation.accuracies import UNLIKE, mean_over, seed_of
from crce.evaluation.report import Report

METHODS = ("esd-x-strict", "crce", "crce-plus")
TITLE = "# What erased pictures look like\n\n"
UNMEASURED = TITLE + (
    "Not measured yet: the reports in `docs/results/table/` and `docs/results/drift/` name no first guesses. "
    "Run `python -m crce measure`, then `python -m crce table`.\n"
)
PAGE = (
    TITLE
    + f"""\
An erasure may turn the concept into another thing, or into a picture of nothing. Unlike: the share of the erased
concept's pictures whose likeliest drawing has a probability below {UNLIKE}, so that the judge finds them unlike every
drawing. Moved: the mean absolute difference between the retains' pictures before and after on the same seeds, in % of
the range of a colour, at 64×64 pixels. η: the strength of the negative guidance, 1 in the paper and in the presets; 0
draws the empty prompt in the concept's place. Acc_U is strict. Means in % with 95 % bootstrap intervals over concepts
and training seeds. `python -m crce table` writes this page from the reports in `docs/results/table/` and
`docs/results/drift/`.

| method | η | concepts | seeds | Acc_U ↓ | unlike ↓ | unlike, base | moved ↓ |
|---|---|---|---|---|---|---|---|
"""
)


def render_page(found: list[Report]) -> str:
    """A row for each method and strength of its negative guidance that was measured on two concepts or more."""
    groups: dict[tuple[str, float], list[Report]] = {}
    for report in found:
        if report.drift.unlike is not None and report.method in METHODS:
            groups.setdefault((report.method, config_from_dict(report.config).eta), []).append(report)
    rows = [
        _render_row(*key, groups[key])
        for key in sorted(groups, key=lambda key: (METHODS.index(key[0]), key[1]))
        if len({r.concept for r in groups[key]}) > 1
    ]
    return PAGE + "\n".join(rows) + "\n" if rows else UNMEASURED


def _render_row(method: str, eta: float, reports: list[Report]) -> str:
    values: list[Callable[[Report], float | None]] = [
        lambda r: r.strict["acc_u"].rate,
        lambda r: r.drift.unlike,
        lambda r: r.drift.base_unlike,
        lambda r: r.drift.moved,
    ]
    cells = [_render_mean(reports, value) for value in values]
    counts = f"{len({r.concept for r in reports})} | {len({seed_of(r) for r in reports})}"
    return f"| {method} | {eta:g} | {counts} | {' | '.join(cells)} |"


def _render_mean(reports: list[Report], value: Callable[[Report], float | None]) -> str:
    mean, low, high = (100 * part for part in mean_over(reports, value))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"
