"""What is erased and what is kept: a target, its corefs and its retains, each with a certainty.

Plain facts, no files and no models: reading and checking a spec file is `library`'s work.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

CERTAINTY = {"very high": 1.0, "high": 0.8, "normal": 0.6, "low": 0.4, "very low": 0.2}
CATEGORIES = ("object", "ip", "celebrity", "style")
SPLITS = ("train", "test")
SOURCES = ("paper", "llm", "expert", "lexicon")


@dataclass(frozen=True)
class Term:
    """A phrase, how certain it is that it belongs to its list, and whether training may see it."""

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
    """One step of the lists' making: who spoke, what was asked, and what came of it ("+ erase: pooch (high)")."""

    by: str
    model: str = ""
    prompt_version: str = ""
    wish: str = ""
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Where the lists came from: who reviewed them, after how many rounds, with which model and prompt.

    history: the proposer's rounds that were taken, and the expert's own edits between them, oldest first.
    """

    reviewer: str = ""
    rounds: int = 0
    model: str = ""
    prompt_version: str = ""
    split_seed: int = 0
    history: tuple[Round, ...] = ()


@dataclass(frozen=True)
class ConceptSpec:
    """One concept of CorefConcept. The order of the terms means nothing: see `digest`."""

    target: str
    category: str = "object"
    sense: str = ""
    corefs: tuple[Term, ...] = ()
    retains: tuple[Term, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def name(self) -> str:
        """How the paper writes it: "bat (animal)" where the word is ambiguous."""
        return f"{self.target} ({self.sense})" if self.sense else self.target

    @property
    def slug(self) -> str:
        """A file name: "bat-animal", and "beyonce" for Beyoncé."""
        letters = "".join(c for c in unicodedata.normalize("NFKD", self.name.lower()) if not unicodedata.combining(c))
        return re.sub(r"[^a-z0-9]+", "-", letters).strip("-") or "concept"

    @property
    def train_corefs(self) -> list[Term]:
        return _ordered(self.corefs, "train")

    @property
    def test_corefs(self) -> list[Term]:
        return _ordered(self.corefs, "test")

    @property
    def train_retains(self) -> list[Term]:
        return _ordered(self.retains, "train")

    @property
    def test_retains(self) -> list[Term]:
        return _ordered(self.retains, "test")

    @property
    def digest(self) -> str:
        """SHA-256 over what training sees, in canonical order; notes and provenance do not change it."""
        lists = [[(t.text, t.certainty) for t in part] for part in self._parts()]
        facts = json.dumps([self.target, self.category, self.sense, lists], ensure_ascii=False)
        return hashlib.sha256(facts.encode()).hexdigest()

    def _parts(self) -> list[list[Term]]:
        return [self.train_corefs, self.test_corefs, self.train_retains, self.test_retains]


def _ordered(terms: tuple[Term, ...], split: str) -> list[Term]:
    """The terms of a split by falling certainty, then text, so that a shuffled file draws the same."""
    return sorted((t for t in terms if t.split == split), key=lambda t: (-t.weight, t.text))


def resolve_conflicts(specs: Sequence[ConceptSpec]) -> tuple[ConceptSpec, ...]:
    """The specs of one run: what one of them erases, no other keeps."""
    if len(specs) == 1:
        return tuple(specs)
    gone = {text.casefold() for spec in specs for text in (spec.target, *(term.text for term in spec.corefs))}
    kept = [tuple(term for term in spec.retains if term.text.casefold() not in gone) for spec in specs]
    return tuple(replace(spec, retains=retains) for spec, retains in zip(specs, kept, strict=True))


def spec_to_dict(spec: ConceptSpec) -> dict:
    """The JSON form of a spec."""
    return json.loads(json.dumps(asdict(spec)))


def spec_from_dict(facts: dict) -> ConceptSpec:
    """The spec of a dict that was checked before (a run's job.json); `library.parse_spec` checks."""
    terms = {key: tuple(Term(**term) for term in facts[key]) for key in ("corefs", "retains")}
    told = facts["provenance"]
    history = tuple(Round(**{**row, "changes": tuple(row["changes"])}) for row in told.get("history", ()))
    return ConceptSpec(**{**facts, **terms, "provenance": Provenance(**{**told, "history": history})})
