"""The pages beside the README's table, each written from the reports in its folder of docs/results/."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crce.config import config_from_dict
from crce.evaluation.metrics import HEADS, METRICS, table
from crce.evaluation.questions import Answers
from crce.evaluation.report import Report, read_report
from crce.experiments.tables import REPORTS, differences, reports
from crce.files import DOCS, RESULTS

PAPER = "crce"  # whose reports in the README's folder the variants are compared with
BACKBONE_PAIRS = [("crce", "esd-x-strict"), ("crce on ca", "ca")]
OTHER_SENSE = {"cricket (insect)": "cricket game", "cricket game": "field cricket"}
SWEEPS_PAGE = """\
# How the presets were chosen

Settings of the training tried on {concepts}, which stand in no table; seeds from 0. The base's preset is CRCE's
setting of highest H; where two are equal, the lower learning rate. ESD and CRCE's ablations share it. Any other
method has its own where one of those tried reached a higher H than with the base's, but for MACE: of two equal rates
it has the higher, since at the lower one its layers do almost nothing. Rows with fewer than 100 pictures for Acc_U
were drawn with half as many of each term.
`python -m crce table` writes this page from the reports in `docs/results/sweeps/`.

| method | lr | steps | {heads} |
|---|---|---|---|---|---|---|---|---|
{rows}
"""
LONGER_PAGE = """\
# Three times as long

Two concepts of the README's table, {concepts}, whose held-out corefs survive there, trained with 900 steps in place of
the preset's 300; seeds from 0. Looked at after the table, to find out whether more training is what they lack.
`python -m crce table` writes this page from the reports in `docs/results/longer/`.

| method | lr | steps | {heads} |
|---|---|---|---|---|---|---|---|---|
{rows}
"""
BACKBONES_PAGE = """\
# CRCE on other backbones

CRCE's corefs and retains added to the loss of two methods, over {concepts}; each pair with the same settings. Pictures
per prompt: 10 (50 for Acc_U), seeds from 0.
`python -m crce table` writes this page from the reports in `docs/results/backbones/` and the README's.

{table}
With the lists − without, paired by concept; a difference whose interval holds 0 is not shown to be any:

{differences}
More backbones on {few}, which stand in no table: pictures in which the judge sees the target (Acc_R: the retain), of
all that were drawn.

| backbone | steps at lr | corefs and retains | {heads} |
|---|---|---|---|---|---|---|---|---|
{rows}
"""
SENSES_PAGE = """\
# One sense of a word

The default model draws both senses of "cricket": the insect, and the game with its bat and ball. Each was erased with
the preset, while the other sense was either no term of the training at all (held out) or one of its retains (listed).
Pictures in which the judge sees the sense, of all that were drawn; seeds from 0.
`python -m crce table` writes this page from the reports in `docs/results/senses/`.

![Prompts on the same seeds: before, without the insect, without the game](../assets/figures/senses.png)

| erased | method | the other sense was | erased sense ↓ | the other sense ↑ | other neighbours ↑ |
|---|---|---|---|---|---|
{rows}

Of "bat" and "apple", the paper's examples, the default model draws one sense only: a baseball bat comes out as the
animal.
"""

LATENTS_PAGE = """\
# Retains at latents of their own

CRCE holds its retains at latents that were sampled for the target, which may be why it loses neighbours that look
unlike it. Here each was held at latents of its own instead: one of a trajectory sampled for that retain (own), beside
the paper's way (target), with the preset over {concepts}. Pictures per prompt: 10 (50 for Acc_U), seeds from 0.
`python -m crce table` writes this page from the reports in `docs/results/retain-latents/` and the README's.

{table}
Differences, paired by concept; one whose interval holds 0 is not shown to be any:

{differences}
Nor does it keep the other sense of a word that no list names (see [senses](senses.md), held out):

| erased | latents | the other sense |
|---|---|---|
{rows}

So it is no setting of ours. Of the two at random was not tried: it lies between them.
"""


def pages() -> dict[Path, str]:
    """The text of each page, by file."""
    drawn = {
        "sweeps": swept(RESULTS / "sweeps", SWEEPS_PAGE),
        "longer": swept(RESULTS / "longer", LONGER_PAGE),
        "backbones": backbones(RESULTS / "backbones"),
        "senses": senses(RESULTS / "senses"),
        "retain-latents": latents(RESULTS / "retain-latents"),
    }
    return {DOCS / f"{name}.md": text for name, text in drawn.items()}


def swept(folder: Path, page: str) -> str:
    """A row for each method and setting."""
    found: dict[tuple[str, float, int], list[Report]] = {}
    for report in _read(folder):
        found.setdefault((report.method, report.config["lr"], report.config["steps"]), []).append(report)
    concepts = sorted({r.concept for rows in found.values() for r in rows})
    return page.format(
        concepts=" and ".join(concepts),
        heads=" | ".join(HEADS.values()),
        rows="\n".join(_setting(*key, rows) for key, rows in sorted(found.items(), key=str)),
    )


def _setting(method: str, lr: float, steps: int, rows: list[Report]) -> str:
    return f"| {method} | {f'{lr:g}' if lr else '–'} | {steps} | {pooled(rows)} |"


def pooled(rows: list[Report]) -> str:
    """Over the concepts: yes/n of each accuracy, and the mean of H."""
    counts = [(sum(r.metrics[name].yes for r in rows), sum(r.metrics[name].n for r in rows)) for name in METRICS]
    cells = [f"{yes}/{n}" for yes, n in counts]
    return f"{' | '.join(cells)} | {sum(r.h or 0.0 for r in rows) / len(rows):.4f}"


def backbones(folder: Path) -> str:
    """A table of two backbones, and rows of counts for more of them."""
    labelled = [
        replace(r, method=config_from_dict(r.config).label) for r in (*reports(REPORTS), *_read(folder / "six"))
    ]
    methods = [method for pair in BACKBONE_PAIRS for method in reversed(pair)]
    concepts = sorted({r.concept for r in labelled if r.method == "crce on ca"})
    found = [r for method in methods for r in labelled if r.method == method and r.concept in concepts]
    few = _read(folder / "two")
    return BACKBONES_PAGE.format(
        concepts=", ".join(concepts), table=table(found), differences=differences(found, BACKBONE_PAIRS),
        few=" and ".join(sorted({r.concept for r in few})), heads=" | ".join(HEADS.values()),
        rows="\n".join(backbone_rows(few)),
    )  # fmt: skip


def backbone_rows(found: list[Report]) -> list[str]:
    """One for each backbone and setting, alone and under CRCE."""
    alike: dict[tuple, list[Report]] = {}
    for report in found:
        config = config_from_dict(report.config)
        key = config.base_method, f"{config.steps} at {config.lr:g}", config.base_method != config.method
        alike.setdefault(key, []).append(report)
    return [f"| {on} | {setting} | {'with' if lists else 'without'} | {pooled(of)} |"
            for (on, setting, lists), of in sorted(alike.items())]  # fmt: skip


def senses(folder: Path) -> str:
    """A row for each erased sense, method, and place of the other sense."""
    rows = sorted((_sense(report) for report in _read(folder)), reverse=True)
    return SENSES_PAGE.format(rows="\n".join(f"| {' | '.join(row)} |" for row in rows))


def _sense(report: Report) -> tuple[str, ...]:
    other = OTHER_SENSE[report.concept]
    retains = [term for term in report.terms if term.kind == "retain"]
    split = next(term.split for term in retains if term.text == other)
    counts = [_seen([term for term in retains if (term.text == other) == wanted]) for wanted in (True, False)]
    target = report.metrics["acc_u"]
    where = {"train": "listed", "test": "held out"}[split]
    return report.concept, report.method, where, f"{target.yes}/{target.n}", *counts


def _seen(terms: list[Answers]) -> str:
    return f"{sum(sum(term.yes) for term in terms)}/{sum(len(term.yes) for term in terms)}"


def latents(folder: Path) -> str:
    """Retains at their own latents beside the paper's, over concepts and for the other sense of a word."""
    own, paper = _read(folder / "senses"), [r for r in _read(RESULTS / "senses" / "held-out") if r.method == PAPER]
    rows = [(r.concept, how, _sense(r)[4]) for how, found in (("target", paper), ("own", own)) for r in found]
    told = "\n".join(f"| {' | '.join(row)} |" for row in sorted(rows))
    return varied(folder / "six", LATENTS_PAGE.replace("{rows}", told), "target")


def varied(folder: Path, page: str, ours: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """Variants of CRCE, told apart by the `method` of their reports, beside the README's CRCE under the name `ours`.

    more: further pairs of names to compare.
    """
    variants = _read(folder)
    names = list(dict.fromkeys(r.method for r in variants))
    concepts = sorted(set.intersection(*({r.concept for r in variants if r.method == name} for name in names)))
    paper = [replace(r, method=ours) for r in reports(REPORTS) if r.method == PAPER]
    found = [r for r in (*paper, *variants) if r.concept in concepts]
    pairs = [*((name, ours) for name in names), *more]
    return page.format(concepts=", ".join(concepts), table=table(found), differences=differences(found, pairs))


def _read(folder: Path) -> list[Report]:
    return [read_report(path) for path in sorted(folder.rglob("*.json"))]
