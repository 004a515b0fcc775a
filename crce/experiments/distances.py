"""docs/distances.md: the terms of "dog" in the default model's text space beside CLIP's in the paper's Table 2."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from crce.files import RESULTS, read_json

FOLDER = RESULTS / "distances"
PAGE = """\
# Names and neighbours in the text space

The problem that CRCE solves: in the space that the model reads, a name of the concept may lie farther from it than a
neighbour does. The paper's Table 2 shows it for "dog" in CLIP's space. Here its terms are measured in the default
model's text encoder, on the states at the end of each text. Nearest here first; **neighbours** in bold.
`python -m crce distances dog --json > docs/results/distances/dog.json` measures, `paper.json` beside it holds the
paper's figures, and `python -m crce table` writes this page.

| | cosine here | distance | cosine in CLIP (the paper) | distance |
|---|---|---|---|---|
{rows}

A name is nearer than a neighbour in {ours:.1f} % of the pairs of these terms here, and in {theirs:.1f} % in the paper.
Farther here than the nearest neighbour, {nearest}: {farther}.
"""


@dataclass(frozen=True)
class Place:
    """Where a coref or retain lies: cosine and Euclidean distance to the concept."""

    kind: str
    text: str
    cosine: float
    euclidean: float


def load(folder: Path = FOLDER) -> tuple[list[Place], list[Place]]:
    """Ours and the paper's of the terms that both have, nearest here first."""
    ours, theirs = (
        {
            term["text"]: Place(term["kind"], term["text"], term["cosine"], term["euclidean"])
            for term in read_json(folder / name)["terms"]
            if term["kind"] != "target"
        }
        for name in ("dog.json", "paper.json")
    )
    shared = sorted(ours.keys() & theirs.keys(), key=lambda text: (-ours[text].cosine, text))
    return [ours[text] for text in shared], [theirs[text] for text in shared]


def share_nearer(places: list[Place]) -> float:
    """In how many of the pairs of a coref and a retain the coref has the higher cosine."""
    corefs, retains = ([p.cosine for p in places if p.kind == kind] for kind in ("coref", "retain"))
    nearer = [coref > retain for coref, retain in product(corefs, retains)]
    return sum(nearer) / len(nearer)


def render_page(ours: list[Place], theirs: list[Place]) -> str:
    nearest = next(place for place in ours if place.kind == "retain")
    farther = [place.text for place in ours if place.kind == "coref" and place.cosine < nearest.cosine]
    return PAGE.format(
        rows="\n".join(map(_render_row, ours, theirs)),
        ours=100 * share_nearer(ours),
        theirs=100 * share_nearer(theirs),
        nearest=nearest.text,
        farther=", ".join(farther) or "none",
    )


def _render_row(here: Place, paper: Place) -> str:
    name = f"**{here.text}**" if here.kind == "retain" else here.text
    values = (here.cosine, here.euclidean, paper.cosine, paper.euclidean)
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"
