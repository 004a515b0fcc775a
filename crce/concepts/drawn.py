"""What a base draws, as its covered.json records it, for those who choose concepts and terms. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from crce import bases
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.files import read_json

Count = tuple[int, int]  # pictures that show the term, of how many


@dataclass(frozen=True)
class Record:
    """least: pictures of a term that must show it. names: slug → pictures of the concept's name that show it; 0 where
    the base's judge does not know the concept. terms: (text, what the judge was asked) → count."""

    least: int = 0
    names: Mapping[str, int] = field(default_factory=dict)
    terms: Mapping[tuple[str, str], Count] = field(default_factory=dict)

    @property
    def covered(self) -> dict[tuple[str, str], bool]:
        """By term and what the judge was asked: whether the base draws it."""
        return {key: yes >= self.least for key, (yes, _) in self.terms.items()}

    def draws(self, spec: ConceptSpec) -> bool | None:
        """Whether the base draws the concept by its name; None where that was not measured."""
        if spec.slug in self.names:
            return self.names[spec.slug] >= self.least
        if count := self.terms.get((spec.target, spec.name)):
            return count[0] >= self.least
        return None

    def count_terms(self, spec: ConceptSpec) -> dict[str, Count]:
        """By term, as far as it was measured: a coref is asked for the concept, a retain for itself."""
        asked = [(term.text, [spec.name, spec.target]) for term in spec.corefs]
        asked += [(term.text, [term.text]) for term in spec.retains]
        return {text: self.terms[text, name] for text, names in asked for name in names if (text, name) in self.terms}

    def list_undrawn(self, spec: ConceptSpec) -> list[str]:
        """The terms that the base is known not to draw."""
        return [text for text, (yes, _) in self.count_terms(spec).items() if yes < self.least]


def read_record(base: str) -> Record:
    """Empty for a base of which nothing was measured, and for one that is no model."""
    try:
        return read_covered(bases.covered_file(base))
    except CrceError:
        return Record()


def read_covered(file: Path) -> Record:
    """What a covered.json says; empty without one. Raises CrceError for a damaged one."""
    try:
        return _read(file, file.stat().st_mtime_ns)
    except OSError:
        return Record()


@lru_cache(maxsize=16)
def _read(file: Path, changed: int) -> Record:
    """Cached by the file's time of change: the library asks for it at every look."""
    try:
        facts = read_json(file)
        terms = {(row["text"], row["asked"]): (row["yes"], row["of"]) for row in facts["terms"]}
        names = {slug: row["name"] for slug, row in facts["concepts"].items()}
        names |= dict.fromkeys(facts.get("unknown", ()), 0)
        return Record(facts["from"], names, terms)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise CrceError(f"{file} does not say what the base draws. Measure it again: crce cover.") from None
