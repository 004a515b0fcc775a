"""A concept spec: the target to erase, its corefs (erased with it) and its retains (kept), each with a certainty.

Plain data, independent of files and models. `library` reads and validates spec files.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from crce.concepts.identity import to_file_name

Certainty = Literal["very high", "high", "normal", "low", "very low"]
Category = Literal["object", "ip", "celebrity", "style"]
Split = Literal["train", "test"]
Source = Literal["paper", "llm", "expert", "lexicon"]
CERTAINTY = {"very high": 1.0, "high": 0.8, "normal": 0.6, "low": 0.4, "very low": 0.2}
CATEGORIES: tuple[str, ...] = get_args(Category)
SPLITS: tuple[str, ...] = get_args(Split)
SOURCES: tuple[str, ...] = get_args(Source)


@dataclass(frozen=True)
class Term:
    """A phrase, how certain we are that it belongs in its list, and whether it is for training or held out."""

    text: str
    certainty: str = "high"
    split: str = "train"
    source: str = "expert"
    note: str = ""

    @property
    def weight(self) -> float:
        """C in the paper's loss (§3.2.3): 1.0 for "very high" down to 0.2 for "very low"."""
        return CERTAINTY[self.certainty]


@dataclass(frozen=True)
class Round:
    """One round of curation: who made it (`by`), the request (`wish`), and its changes ("+ erase: pooch (high)")."""

    by: str
    model: str = ""
    prompt_version: str = ""
    wish: str = ""
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """The phrases of both lists as this person signed them."""

    reviewer: str
    corefs: tuple[str, ...] = ()
    retains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Where the lists came from: the reviewer, the number of rounds, the model and the prompt version.

    history: accepted rounds of the proposer and the expert's own edits between them, oldest first. reviewer: who signed
    the lists as they are; reviews: what each person signed last, also before later changes.
    """

    reviewer: str = ""
    rounds: int = 0
    model: str = ""
    prompt_version: str = ""
    split_seed: int = 0
    history: tuple[Round, ...] = ()
    reviews: tuple[Review, ...] = ()


@dataclass(frozen=True)
class ConceptSpec:
    """A concept and its two lists. The order of the terms has no meaning: see `digest`."""

    target: str
    category: str = "object"
    sense: str = ""
    corefs: tuple[Term, ...] = ()
    retains: tuple[Term, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def name(self) -> str:
        """The name as the paper writes it: "bat (animal)" if the word is ambiguous."""
        return f"{self.target} ({self.sense})" if self.sense else self.target

    @property
    def slug(self) -> str:
        """The name as a file name, which no other concept has (`identity`): "dog", "bat-animal", "concept-5f0d03ab"."""
        return to_file_name(self.target, self.sense)

    @property
    def train_corefs(self) -> list[Term]:
        return _sort_split(self.corefs, "train")

    @property
    def test_corefs(self) -> list[Term]:
        return _sort_split(self.corefs, "test")

    @property
    def train_retains(self) -> list[Term]:
        return _sort_split(self.retains, "train")

    @property
    def test_retains(self) -> list[Term]:
        return _sort_split(self.retains, "test")

    @property
    def digest(self) -> str:
        """SHA-256 of everything that affects training, in canonical order; notes and provenance are excluded."""
        parts = self.train_corefs, self.test_corefs, self.train_retains, self.test_retains
        lists = [[(t.text, t.certainty) for t in part] for part in parts]
        facts = json.dumps([self.target, self.category, self.sense, lists], ensure_ascii=False)
        return hashlib.sha256(facts.encode()).hexdigest()


def _sort_split(terms: tuple[Term, ...], split: str) -> list[Term]:
    """The terms of a split by descending certainty, then text, so that sampling is independent of the file's order."""
    return sorted((t for t in terms if t.split == split), key=lambda t: (-t.weight, t.text))


def bare(text: str) -> str:
    """The text without case, further blanks and an article: equal for "A dog" and "dog"."""
    words = text.casefold().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def restrict(spec: ConceptSpec, concept: str) -> ConceptSpec:
    """The erasure of an attribute from a concept alone, as lists: the concept is what changes, and so do prompts that
    name the attribute with it ("Santa Claus, cap"). The attribute elsewhere stays, as do the retains; whether the rest
    of the concept stays can only be measured, so it is held out."""
    corefs = tuple(replace(term, text=f"{concept}, {term.text}") for term in spec.corefs)
    retains = tuple(term for term in spec.retains if bare(term.text) not in (bare(concept), bare(spec.target)))
    own = Term(spec.target, "very high"), Term(concept, "very high", split="test")
    return replace(spec, target=concept, sense=f"without {spec.name}", corefs=corefs, retains=(*own, *retains))


def replace_lists(spec: ConceptSpec, lists: Mapping[str, Iterable[Term]]) -> ConceptSpec:
    """The spec with the given lists, by name ("corefs", "retains"); a list that is not given stays."""
    both = {"corefs": spec.corefs, "retains": spec.retains, **lists}
    return replace(spec, corefs=tuple(both["corefs"]), retains=tuple(both["retains"]))


def resolve_conflicts(specs: Sequence[ConceptSpec]) -> tuple[ConceptSpec, ...]:
    """The specs of one run without retains that another of them erases."""
    if len(specs) == 1:
        return tuple(specs)
    gone = {text.casefold() for spec in specs for text in (spec.target, *(term.text for term in spec.corefs))}
    return tuple(
        replace(spec, retains=tuple(term for term in spec.retains if term.text.casefold() not in gone))
        for spec in specs
    )


def spec_to_dict(spec: ConceptSpec) -> dict:
    """The JSON form of a spec. Versions before 0.2 know no reviews, so without any there is no field for them."""
    facts = json.loads(json.dumps(asdict(spec)))
    if not spec.provenance.reviews:
        del facts["provenance"]["reviews"]
    return facts


def spec_from_dict(facts: dict) -> ConceptSpec:
    """The spec from a dict that was validated before, such as a run's job.json; `library.parse_spec` validates."""
    terms = {key: tuple(Term(**term) for term in facts[key]) for key in ("corefs", "retains")}
    told = facts["provenance"]
    history = tuple(Round(**{**row, "changes": tuple(row["changes"])}) for row in told.get("history", ()))
    reviews = tuple(
        Review(row["reviewer"], *map(tuple, (row["corefs"], row["retains"]))) for row in told.get("reviews", ())
    )
    return ConceptSpec(
        **{**facts, **terms, "provenance": Provenance(**{**told, "history": history, "reviews": reviews})}
    )
