"""The judge against a person, on pictures of erased models (`assets/build/erased.py`). No torch."""

from dataclasses import dataclass
from typing import cast

from crce.evaluation.agreement import Agreement, Answer, PersonVerdict, measure_agreement
from crce.files import RESULTS, read_json

RESULT = RESULTS / "judge" / "erased.json"
PAGE = """\
# The judge and a person, on erased pictures

An erased model draws garbled things that no judge was trained on. Here are {n} pictures of ten erasures, some of which
erase too little and some far too much: {concepts}. A third are of the concept, a third of its corefs, a third of its
retains. One of us answered each by eye, once, on enlarged sheets without the judge's verdicts: {yes} yes, {no} no,
{unclear} cannot tell; these last are left out below. κ is Cohen's, with a 95 % bootstrap interval over the prompts.
`python -m assets.build erased` draws and judges the pictures, and `python -m crce table` writes this page from
`docs/results/judge/`.

| the judge's rule | of | κ | both alike | judge yes, person no | judge no, person yes |
|---|---|---|---|---|---|
{rows}

Yes: the asked concept has at least the threshold's share of the probability. Strict: the judge's first guess is the
asked concept or of its family. Where nearly all answers are the same, κ says little: there see how many are alike.
"""


@dataclass(frozen=True)
class Judged:
    """A picture of an erased model: what was erased and how, what was drawn and asked, the judge's verdict, and a
    person's answer; empty before it is given."""

    concept: str
    method: str
    steps: int
    lr: float
    kind: str
    text: str
    asked: str
    seed: int
    yes: bool
    strict: bool
    p: float
    guess: str
    answer: str = ""


def load() -> list[Judged]:
    """The pictures that a person has answered."""
    found = [Judged(**row) for row in read_json(RESULT)] if RESULT.exists() else []
    return [row for row in found if row.answer]


def compare(rows: list[Judged], strict: bool) -> Agreement | None:
    """How far the judge agrees by one of its rules; None where nothing can be compared."""
    told = [
        PersonVerdict(f"{r.concept}: {r.text}", r.asked, n, True, cast(Answer, r.answer)) for n, r in enumerate(rows)
    ]
    judged = [row.strict if strict else row.yes for row in rows]
    return measure_agreement(told, "embedded", {v.picture: yes for v, yes in zip(told, judged, strict=True)})


def render(rows: list[Judged]) -> str:
    """The page: each rule over all pictures, and over those of the concepts and corefs, and of the retains."""
    groups = {"all": rows, "concept and corefs": [r for r in rows if r.kind != "retain"]}
    groups["retains"] = [r for r in rows if r.kind == "retain"]
    counts = {key: sum(r.answer == key for r in rows) for key in ("yes", "no", "unclear")}
    table = [_render_row(rule, of, group) for rule in ("yes", "strict") for of, group in groups.items()]
    concepts = ", ".join(dict.fromkeys(r.concept for r in rows))
    return PAGE.format(n=len(rows), concepts=concepts, rows="\n".join(table), **counts)


def _render_row(rule: str, of: str, rows: list[Judged]) -> str:
    found = compare(rows, rule == "strict")
    said = [(r.strict if rule == "strict" else r.yes, r.answer) for r in rows]
    wrong = f"{said.count((True, 'no'))} | {said.count((False, 'yes'))}"
    kappa, alike = (found.kappa_text, f"{found.same}/{found.n}") if found else ("–", "0/0")
    return f"| {rule} | {of} | {kappa} | {alike} | {wrong} |"
