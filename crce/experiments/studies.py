"""The pages in docs/ that are written from reports, one folder of docs/results/ per page."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from crce.config import ResolvedConfig, config_from_dict
from crce.evaluation.accuracies import are_strict, table
from crce.evaluation.metrics import HEADS, METRICS
from crce.evaluation.questions import Answers
from crce.evaluation.report import Report, read_report
from crce.experiments import by_hand, distances, drift, near_far
from crce.experiments.sweep import choose_all, load_settings, mean_drift, mean_h, pool_acc_u
from crce.experiments.tables import (
    REPORTS,
    count_pictures,
    count_seeds,
    find_reports,
    keep_shared,
    load_reports,
    render_differences,
)
from crce.files import DOCS, RESULTS

PAPER = "crce"  # the method in REPORTS that variants are compared with
BACKBONE_PAIRS = [("crce", "esd-x-strict"), ("crce on ca", "ca")]
OTHER_SENSE = {"cricket (insect)": "cricket game", "cricket game": "field cricket"}
SWEEPS_PAGE = """\
# How the presets were chosen

Training settings tried on the concepts {concepts}, which are in none of the tables, though most drawings of "boat" are
also of the tables' "ship"; seeds from 0. λ stands beside the rate where a closed form was tried with one. Rows with
fewer pictures than others were tried on fewer concepts.

A preset is chosen by this rule, for each method with at least six settings on the same concepts:

1. A setting erases if Acc_U over all concepts is at most 5 %.
2. Of those that erase, the ones whose mean H is within 0.01 of the highest are as good.
3. Of these, the one with the least drift is taken: the share of the concept's pictures that are unlike every drawing,
   plus how far the neighbours' pictures moved. If it is the same, the one that trains less.

If no setting erases, the one with the lowest Acc_U is taken. Two kinds of methods go without a choice of their own:
ESD-x strict and CRCE's variants are compared with CRCE, so they have its preset, as in the paper (what the rule would
choose for ESD-x strict stands below); and of UCE as published nothing can be set.
`python -m crce sweep` measures, and `python -m crce table` writes this page from the reports in `docs/results/sweeps/`.

## Chosen

{chosen}

## All settings

Pictures that count, of all.

| method | lr | steps | {heads} |
|---|---|---|---|---|---|---|---|---|
{rows}
"""
BACKBONES_PAGE = """\
# CRCE on other backbones

CRCE's coref and retain terms added to the losses of two methods, over {concepts}, training seed 0; both methods of a
pair use the same settings. {pictures}
`python -m crce table` writes this page from the reports in `docs/results/backbones/` and the README's.

{table}
Difference made by the lists, paired by concept; an interval that contains 0 shows no difference:

{differences}
"""
SENSES_PAGE = """\
# One sense of a word

The default model draws both senses of "cricket": the insect, and the game with its bat and ball. Each was erased with
the preset, with the other sense either left out of training (held out) or among the retains (listed). The counts are
pictures in which the judge sees the sense, out of all drawn; seeds from 0.
`python -m crce table` writes this page from the reports in `docs/results/senses/`.

| erased | method | the other sense was | erased sense ↓ | the other sense ↑ | other neighbours ↑ |
|---|---|---|---|---|---|
{rows}
"""

GONE_PAGE = """\
# Stopped when gone

The README's concepts and methods, with `--until-gone` in place of the preset's steps: training ends once the judge sees
the concept in at most one of about 20 pictures of it and of the names most certain to be it. The table shows what
survives of the names at that moment, and what is left of the neighbours.
Mean over {concepts} concepts {seeds}.
`python -m crce measure … --until-gone --images 4 --out docs/results/gone` measures, and `python -m crce table` writes
this page.

{table}
Differences, paired by concept; an interval that contains 0 shows no difference:

{differences}
Steps taken, median (least to most): {steps}. The preset's are {preset}.
"""

STRICT = """
A picture counts if the judge's first guess among all its drawings is the thing asked for, or of its family.
"""
STRICT_PAGE = f"{STRICT}After the slash: the share of pictures to which the judge says yes.\n"


def render_pages() -> dict[Path, str]:
    """The text of each page by file; a study without reports has no page."""
    studies: dict[str, Callable[[Path], str]] = {
        "sweeps": lambda folder: render_sweep(folder, SWEEPS_PAGE.replace("{chosen}", render_choices(folder))),
        "gone": render_gone,
        "backbones": render_backbones,
        "senses": render_senses,
        "distances": lambda folder: distances.render_page(*distances.load(folder)),
    }
    pages = {DOCS / f"{name}.md": draw(RESULTS / name) for name, draw in studies.items() if (RESULTS / name).is_dir()}
    judged = by_hand.load()
    pages |= {DOCS / "judge.md": by_hand.render(judged)} if judged else {}
    return {**pages, **render_split(load_reports(REPORTS)), **render_drift()}


def render_split(found: list[Report], folder: Path = DOCS) -> dict[Path, str]:
    """The page on near and far terms, and its plot where there is something to plot."""
    page = {folder / "near-far.md": near_far.render_page(found)}
    return {**page, folder / "near-far.svg": near_far.draw_plot(found)} if near_far.can_split(found) else page


def render_drift() -> dict[Path, str]:
    """The page on what erased pictures look like."""
    return {DOCS / "drift.md": drift.render_page([*load_reports(REPORTS), *_read(RESULTS / "drift")])}


def render_gone(folder: Path) -> str:
    """The page on runs that end when the concept is gone."""
    found, pair = load_reports(folder), (PAPER, near_far.OTHER)
    taken = {method: sorted(r.steps for r in found if r.method == method) for method in reversed(pair)}
    told = [f"{method} {median(steps):g} ({steps[0]} to {steps[-1]})" for method, steps in taken.items()]
    return GONE_PAGE.format(
        concepts=len({r.concept for r in found}), seeds=count_seeds(found), table=table(found),
        differences=render_differences(found, [pair]), steps=", ".join(told),
        preset=max(config_from_dict(r.config).steps for r in found),
    ) + explain_strict(found)  # fmt: skip


def render_sweep(folder: Path, page: str) -> str:
    """Fills `page` with a row for each method and setting."""
    found = load_settings(folder)
    concepts = sorted({r.concept for rows in found.values() for r in rows})
    return page.format(
        concepts=", ".join(concepts),
        heads=" | ".join(HEADS.values()),
        rows="\n".join(f"| {' | '.join(_setting_cells(*key))} | {pool_counts(rows)} |" for key, rows in found.items()),
    ) + STRICT * are_strict([r for rows in found.values() for r in rows])


def _setting_cells(method: str, config: ResolvedConfig) -> tuple[str, str, str]:
    """Method, rate and steps; with λ where one was set."""
    damped = "" if config.damping is None else f", λ {config.damping:g}"
    return method, f"{f'{config.lr:g}' if config.lr else '–'}{damped}", str(config.steps)


def render_choices(folder: Path) -> str:
    """A table with a row for each method whose preset the rule chooses; a line where there is none."""
    choices = choose_all(load_settings(folder))
    rows = [
        f"| {' | '.join(_setting_cells(c.method, c.config))} | {100 * pool_acc_u(c.reports):.1f} | "
        f"{100 * mean_h(list(c.reports)):.1f} | {mean_drift(list(c.reports)):.3f} | {'yes' if c.erases else '**no**'} |"
        for c in choices
    ]
    head = ["| method | lr | steps | Acc_U ↓ | H ↑ | drift ↓ | erases |", "|---|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else "No method has six settings here yet."


def explain_strict(found: list[Report]) -> str:
    """A last paragraph for a page whose figures are strict; else nothing."""
    return STRICT_PAGE * (bool(found) and are_strict(found))


def pool_counts(rows: list[Report]) -> str:
    """yes/n of each accuracy summed over the concepts, and the mean H, as table cells; strict where all rows are."""
    found = [r.strict if are_strict(rows) else r.metrics for r in rows]
    counts = [(sum(each[name].yes for each in found), sum(each[name].n for each in found)) for name in METRICS]
    cells = [f"{yes}/{n}" for yes, n in counts]
    return f"{' | '.join(cells)} | {sum(r.h or 0.0 for r in rows) / len(rows):.4f}"


def render_backbones(folder: Path, table_folder: Path = REPORTS) -> str:
    """The page on CRCE on another backbone, beside the methods of the README's table."""
    both = (*load_reports(table_folder), *_read(folder))
    labelled = [replace(r, method=config_from_dict(r.config).label) for r in both]
    methods = [method for pair in BACKBONE_PAIRS for method in reversed(pair)]
    found = keep_shared([r for method in methods for r in labelled if r.method == method])
    return BACKBONES_PAGE.format(
        concepts=", ".join(sorted({r.concept for r in found})), pictures=count_pictures(found), table=table(found),
        differences=render_differences(found, BACKBONE_PAIRS),
    ) + explain_strict(found)  # fmt: skip


def render_senses(folder: Path) -> str:
    """The page on word senses: a row for each erased sense, method and role of the other sense."""
    rows = sorted((_summarise_sense(report) for report in _read(folder)), reverse=True)
    return SENSES_PAGE.format(rows="\n".join(f"| {' | '.join(row)} |" for row in rows))


def _summarise_sense(report: Report) -> tuple[str, ...]:
    other = OTHER_SENSE[report.concept]
    retains = [term for term in report.terms if term.kind == "retain"]
    split = next(term.split for term in retains if term.text == other)
    counts = [_count_seen([term for term in retains if (term.text == other) == wanted]) for wanted in (True, False)]
    target = report.metrics["acc_u"]
    where = {"train": "listed", "test": "held out"}[split]
    return report.concept, report.method, where, f"{target.yes}/{target.n}", *counts


def _count_seen(terms: list[Answers]) -> str:
    return f"{sum(sum(term.yes) for term in terms)}/{sum(len(term.yes) for term in terms)}"


def render_variants(folder: Path, page: str, ours: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """Fills `page` with variants of CRCE, named by the `method` in their reports, and the README's CRCE as `ours`.

    more: further pairs of names to compare.
    """
    variants = _read(folder)
    names = list(dict.fromkeys(r.method for r in variants))
    paper = [replace(r, method=ours) for r in load_reports(REPORTS) if r.method == PAPER]
    found = keep_shared([*paper, *variants])
    concepts = sorted({r.concept for r in found})
    pairs = [*((name, ours) for name in names), *more]
    return page.format(
        concepts=", ".join(concepts), pictures=count_pictures(found), table=table(found),
        differences=render_differences(found, pairs),
    ) + explain_strict(found)  # fmt: skip


def _read(folder: Path) -> list[Report]:
    return [read_report(path) for path in find_reports(folder)]
