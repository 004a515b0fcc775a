"""Who looked at a concept, and how far several reviewers agree on its lists."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

from crce.concepts.spec import ConceptSpec, Review


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
    pairs = Counter((_place(one, text), _place(other, text)) for text in phrases)
    n, same = pairs.total(), sum(count for (a, b), count in pairs.items() if a == b)
    return ReviewAgreement(concept, (one.reviewer, other.reviewer), n, same, _kappa(pairs))


def _place(review: Review, phrase: str) -> str:
    lists = {"coref": review.corefs, "retain": review.retains}
    return next((kind for kind, texts in lists.items() if phrase in map(str.casefold, texts)), "neither")


def _kappa(pairs: Counter[tuple[str, str]]) -> float | None:
    """(p_o − p_e) / (1 − p_e); None where p_e is 1."""
    n = pairs.total()
    if not n:
        return None
    one, other = Counter[str](), Counter[str]()
    for (a, b), count in pairs.items():
        one[a] += count
        other[b] += count
    observed = sum(count for (a, b), count in pairs.items() if a == b) / n
    expected = sum(one[kind] * other[kind] for kind in one) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
