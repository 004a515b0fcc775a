"""Who looked at a concept, and how far several reviewers agree on its lists."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from crce.concepts.spec import ConceptSpec, Review
from crce.kappa import kappa

_PLACES = ("coref", "retain", "neither")


@dataclass(frozen=True)
class ReviewAgreement:
    """Cohen's κ (1960) of two reviewers of a concept, over the `n` phrases that either has in a list: coref, retain or
    neither. same: on how many they agree. kappa: None where chance explains all."""

    concept: str
    reviewers: tuple[str, str]
    n: int
    same: int
    kappa: float | None

    @property
    def text(self) -> str:
        return "–" if self.kappa is None else f"{self.kappa:.2f}"


def sign(spec: ConceptSpec, reviewer: str) -> ConceptSpec:
    """The spec as reviewed by this person. The lists that other reviewers signed stay in the provenance."""
    corefs, retains = (tuple(term.text for term in terms) for terms in (spec.corefs, spec.retains))
    others = tuple(each for each in spec.provenance.reviews if each.reviewer.casefold() != reviewer.casefold())
    reviews = (*others, Review(reviewer, corefs, retains))
    return replace(spec, provenance=replace(spec.provenance, reviewer=reviewer, reviews=reviews))


def measure(specs: Iterable[ConceptSpec]) -> list[ReviewAgreement]:
    """For each concept that more than one person looked at, each pair of them."""
    return [
        _compare(spec.name, one, other) for spec in specs for one, other in combinations(spec.provenance.reviews, 2)
    ]


def _compare(concept: str, one: Review, other: Review) -> ReviewAgreement:
    phrases = {text.casefold() for review in (one, other) for text in (*review.corefs, *review.retains)}
    table = np.zeros((len(_PLACES), len(_PLACES)))
    for text in phrases:
        table[_PLACES.index(_place(one, text)), _PLACES.index(_place(other, text))] += 1
    (found,) = kappa(table[None])
    known = None if np.isnan(found) else float(found)
    return ReviewAgreement(concept, (one.reviewer, other.reviewer), len(phrases), int(np.trace(table)), known)


def _place(review: Review, phrase: str) -> str:
    lists = {"coref": review.corefs, "retain": review.retains}
    return next((kind for kind, texts in lists.items() if phrase in map(str.casefold, texts)), "neither")
