"""docs/near-far.md: where CRCE's lists help, by how far a term is from the concept in the text encoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

from jinja2 import Template

from crce.evaluation.accuracies import mean_over, paired_difference, seed_of
from crce.evaluation.questions import Answers
from crce.evaluation.report import Report

OURS, OTHER, PLUS = "crce", "esd-x-strict", "crce-plus"
TERM_METHODS, TERMS = (OTHER, OURS, PLUS), 8  # of the tables of single terms
TITLE = "# Near and far terms\n\n"
UNMEASURED = TITLE + (
    "Not measured yet: the reports in `docs/results/table/` name no distances. "
    "Run `python -m crce measure`, then `python -m crce table`.\n"
)
PAGE = Template(
    TITLE
    + """\
The paper's Figure 3 argues that an erasure of the name alone misses names that lie far from it in the text encoder's
space, and hits neighbours that lie near. Here the names and the neighbours of each concept are split at the median of
their Euclidean distances to it, names and neighbours each by their own, and counted apart. Means in % over
{{ concepts }} concepts and {{ seeds }} training seed{{ "s" if seeds > 1 }}, with 95 % bootstrap intervals over both.
Strict: a picture counts if the judge's first guess is the thing asked for, or of its family. Only terms that the base
model draws are counted.
`python -m crce table` writes this page and its plot from the reports in `docs/results/table/`.

![The difference between CRCE and ESD-x strict on near and far names and neighbours](near-far.svg)

{% for ours, other, rows in pairs -%}
| | n | base | {{ other }} | {{ ours }} | {{ ours }} − {{ other }} |
|---|---|---|---|---|---|
{% for row in rows -%}
| {{ row.name }}, {{ row.which }} {{ row.arrow }} | {{ row.n }} | {{ "%.1f"|format(row.base) }} \
| {{ "%.1f"|format(row.other) }} | {{ "%.1f"|format(row.ours) }} | {{ row.shown }} |
{% endfor %}
{% endfor -%}
n: concepts that have such terms. An interval that contains 0 shows no difference.

## Does the gain lie there?

The hypothesis: CRCE gains more on ESD-x strict in far names than in near ones, and in near neighbours than in far ones.
The gain in the one less the gain in the other, in points, paired by concept and seed:

| CRCE gains more in | than in | terms | by | |
|---|---|---|---|---|
{% for row in hypothesis -%}
| {{ row.more }} | {{ row.less }} | {{ row.which }} | {{ row.by }} | {{ row.verdict }} |
{% endfor -%}
{% if terms %}
## Term by term

The terms on which ESD-x strict and CRCE differ most, and the names that survive CRCE most. Strict, in % of the pictures
of all training seeds; the held-out terms are marked. Near and far as above. They were picked for their difference: they
show what happens, and the tables above how much of it there is.

{% for title, found in terms -%}
| {{ title }} | when erasing | | {{ labels|join(" | ") }} |
|---|---|---|{{ "---|" * labels|length }}
{% for row in found -%}
| {{ row.text }}{{ " (held out)" if row.held }} | {{ row.concept }} | {{ row.where }} | {{ row.shown }} |
{% endfor %}
{% endfor -%}
![Horse, three of its names and four neighbours, before and after "horse" was erased with ESD-x strict, CRCE and \
CRCE-plus: the donkey, held out, is gone with ESD and stays with CRCE](figures/horse.png)
{% endif -%}
"""
)
WIDE, LEFT, TOP, ROW = 420, 190, 40, 26
PLOT = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ left + wide + 30 }} {{ top + rows|length * row + 50 }}" \
font-family="sans-serif" font-size="12" fill="#0f172a">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{{ left }}" y="20" font-weight="bold">CRCE − ESD-x strict, points of accuracy</text>
<path d="M{{ zero }} {{ top - 8 }}V{{ bottom }}" stroke="#64748b"/>
{% for x, label in ticks %}<text x="{{ x }}" y="{{ bottom + 16 }}" text-anchor="middle">{{ label }}</text>
{% endfor %}<text x="{{ left }}" y="{{ bottom + 36 }}" fill="#64748b">names: left of 0 is better; neighbours: right of \
0 is better; hollow: held-out terms</text>
{% for r in rows %}<g stroke="{{ r.colour }}" stroke-width="2" transform="translate(0 {{ r.y }})">
<path d="M{{ r.low }} 0H{{ r.high }}"/><circle cx="{{ r.mean }}" cy="0" r="4" \
fill="{{ r.colour if r.full else "#ffffff" }}"/></g>
<text x="{{ left - 12 }}" y="{{ r.y + 4 }}" text-anchor="end">{{ r.name }}, {{ r.which }}</text>
{% endfor %}</svg>
""")
COLOURS = {"coref": "#d6336c", "retain": "#0b8a72"}


@dataclass(frozen=True)
class Part:
    """Near or far terms of one kind; held: only those held out from training."""

    kind: str
    near: bool
    held: bool

    @property
    def name(self) -> str:
        return f"{'near' if self.near else 'far'} {'names' if self.kind == 'coref' else 'neighbours'}"


PARTS = [Part(kind, near, held) for kind in COLOURS for near in (True, False) for held in (False, True)]


def choose_terms(report: Report, part: Part) -> list[Answers]:
    """The covered terms of this part. Near: not farther than the median of the covered terms of its kind."""
    terms = [t for t in report.terms if t.kind == part.kind and t.covered is not False and t.distance is not None]
    if not terms:
        return []
    middle = median(t.distance for t in terms if t.distance is not None)
    near = [t for t in terms if ((t.distance or 0.0) <= middle) == part.near]
    return [t for t in near if t.split == "test" or not part.held]


def measure_share(report: Report, part: Part, before: bool = False) -> float | None:
    """The strict share of pictures of these terms; before: of the base's pictures. None without such a term."""
    counted = [t.base_strict if before else t.strict for t in choose_terms(report, part)]
    n = sum(map(len, counted))
    return sum(map(sum, counted)) / n if n else None


def can_split(found: list[Report], pair: tuple[str, str] = (OURS, OTHER)) -> bool:
    """Whether the reports have what a table of these methods needs, of two concepts or more."""
    both = [[r for r in found if r.method == m and any(t.distance for t in r.terms)] for m in pair]
    return all(len({r.concept for r in reports}) > 1 and all(r.strict for r in reports) for reports in both)


def measure_rows(found: list[Report], pair: tuple[str, str] = (OURS, OTHER)) -> list[dict]:
    """For each part the means of both methods and the difference, in points; a part with fewer than two concepts is
    left out."""
    ours, other = ([r for r in found if r.method == method] for method in pair)
    rows = []
    for part in PARTS:
        share: Callable[..., float | None] = partial(measure_share, part=part)
        concepts = {r.concept for r in ours if share(r) is not None} & {r.concept for r in other}
        if len(concepts) < 2:
            continue
        mean, low, high = (100 * value for value in paired_difference(found, share, *pair))
        rows.append({
            "name": part.name, "which": "held out" if part.held else "all", "full": not part.held,
            "arrow": "↓" if part.kind == "coref" else "↑", "colour": COLOURS[part.kind], "n": len(concepts),
            "base": 100 * mean_over(other, partial(share, before=True))[0],
            "other": 100 * mean_over(other, share)[0], "ours": 100 * mean_over(ours, share)[0],
            "difference": (mean, low, high), "shown": f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
        })  # fmt: skip
    return rows


HYPOTHESIS = (("coref", False), ("retain", True))  # the gain is expected in far names and in near neighbours


def measure_hypothesis(found: list[Report]) -> list[dict]:
    """For names and neighbours, all and held out: by how many points the gain of CRCE in the terms where it is expected
    exceeds that in the others. What fewer than two concepts have is left out."""
    rows = []
    for kind, near in HYPOTHESIS:
        for held in (False, True):
            more, less = Part(kind, near, held), Part(kind, not near, held)
            gain: Callable[[Report], float | None] = partial(_exceed, more=more, less=less)
            if len({r.concept for r in found if r.method in (OURS, OTHER) and gain(r) is not None}) < 2:
                continue
            mean, low, high = (100 * value for value in paired_difference(found, gain, OURS, OTHER))
            rows.append({
                "more": more.name, "less": less.name, "which": "held out" if held else "all",
                "by": f"{mean:+.1f} ({low:+.1f} to {high:+.1f})", "verdict": "shown" if low > 0 else "not shown",
            })  # fmt: skip
    return rows


def _exceed(report: Report, more: Part, less: Part) -> float | None:
    """What is kept in the one part more than in the other; of names, what is gone more."""
    one, other = measure_share(report, more), measure_share(report, less)
    if one is None or other is None:
        return None
    return other - one if more.kind == "coref" else one - other


@dataclass(frozen=True)
class TermRow:
    """One term: its concept, where it lies, and the strict share of its pictures with each of `TERM_METHODS`."""

    concept: str
    kind: str
    text: str
    where: str
    held: bool
    shares: tuple[float, ...]

    @property
    def shown(self) -> str:
        """In %, as table cells."""
        return " | ".join(f"{100 * share:.0f}" for share in self.shares)


def measure_terms(found: list[Report]) -> list[TermRow]:
    """The covered terms of the concepts that all of `TERM_METHODS` were measured on."""
    seen: dict[tuple[str, str, str], dict[str, list[bool]]] = {}
    facts: dict[tuple[str, str, str], tuple[str, bool]] = {}
    for report in found:
        for part in (Part(kind, near, False) for kind in COLOURS for near in (True, False)):
            for term in choose_terms(report, part):
                key = (report.concept, term.kind, term.text)
                facts[key] = ("near" if part.near else "far", term.split == "test")
                seen.setdefault(key, {}).setdefault(report.method, []).extend(term.strict)
    return [
        TermRow(*key, *facts[key], tuple(sum(of[m]) / len(of[m]) for m in TERM_METHODS))
        for key, of in seen.items()
        if of.keys() >= set(TERM_METHODS)
    ]


def list_terms(found: list[Report]) -> list[tuple[str, list[TermRow]]]:
    """The tables of single terms: a title and its rows; empty where a method was not measured."""
    rows = measure_terms(found)
    names, neighbours = ([row for row in rows if row.kind == kind] for kind in COLOURS)
    chosen = [
        ("Neighbours ↑", sorted(neighbours, key=lambda row: row.shares[0] - row.shares[1])),
        ("Names ↓", sorted(names, key=lambda row: row.shares[1] - row.shares[0])),
        ("Names that survive CRCE ↓", sorted(names, key=lambda row: -row.shares[1])),
    ]
    return [(title, found[:TERMS]) for title, found in chosen if found]


def render_page(found: list[Report]) -> str:
    pairs = [pair for pair in ((OURS, OTHER), (PLUS, OURS)) if can_split(found, pair)]
    if (OURS, OTHER) not in pairs:
        return UNMEASURED
    counted = [r for r in found if r.method in (OURS, OTHER)]
    concepts, seeds = {r.concept for r in counted}, {seed_of(r) for r in counted}
    tables = [(*pair, measure_rows(found, pair)) for pair in pairs]
    rendered = PAGE.render(
        pairs=tables,
        hypothesis=measure_hypothesis(found),
        terms=list_terms(found),
        labels=TERM_METHODS,
        concepts=len(concepts),
        seeds=len(seeds),
    )
    return rendered.rstrip() + "\n"


def draw_plot(found: list[Report]) -> str:
    """The differences with their intervals as SVG."""
    rows = measure_rows(found)
    ends = [0.0, *(value for row in rows for value in row["difference"])]
    low, high = min(ends) - 2, max(ends) + 2
    place = lambda value: round(LEFT + (value - low) / (high - low) * WIDE, 1)  # noqa: E731
    drawn = [
        {**row, "y": TOP + ROW * number + ROW // 2,
         **dict(zip(("mean", "low", "high"), map(place, row["difference"]), strict=True))}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    ticks = [(place(value), f"{value:+d}" if value else "0") for value in _choose_ticks(low, high)]
    return PLOT.render(rows=drawn, ticks=ticks, zero=place(0), bottom=TOP + ROW * len(rows), left=LEFT, wide=WIDE,
                       top=TOP, row=ROW)  # fmt: skip


def _choose_ticks(low: float, high: float) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50) if (high - low) / step <= 8 or step == 50)
    return [value for value in range(-200, 201, step) if low <= value <= high]
