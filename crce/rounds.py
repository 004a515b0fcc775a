"""Changing a spec: single edits, and what a proposer would change, as changes that the expert takes or leaves."""

from dataclasses import asdict, dataclass, replace

from crce.concepts import ConceptSpec, Provenance, Term

LISTS = {"corefs": "erase", "retains": "keep"}
_VERBS = {"drop": "−", "add": "+", "move": "~"}


@dataclass(frozen=True)
class Change:
    """One term dropped from a list, added to it, or given another certainty."""

    verb: str
    kind: str
    term: Term

    @property
    def label(self) -> str:
        why = f" — {self.term.note}" if self.term.note and self.verb == "add" else ""
        certainty = f" ({self.term.certainty})" if self.verb != "drop" else ""
        return f"{_VERBS[self.verb]} {LISTS[self.kind]}: {self.term.text}{certainty}{why}"


def with_terms(spec: ConceptSpec, kind: str, texts: list[str]) -> ConceptSpec:
    """Adds phrases to a list; what the spec holds already is passed over."""
    taken = {spec.target.casefold(), *(term.text.casefold() for term in (*spec.corefs, *spec.retains))}
    fresh = {text.casefold(): text for text in map(str.strip, texts) if text and text.casefold() not in taken}
    return replace(spec, **{kind: (*getattr(spec, kind), *map(Term, fresh.values()))})


def with_term(spec: ConceptSpec, kind: str, text: str, /, **facts: str) -> ConceptSpec:
    terms = tuple(replace(term, **facts) if term.text == text else term for term in getattr(spec, kind))
    return replace(spec, **{kind: terms})


def without_term(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    return replace(spec, **{kind: tuple(term for term in getattr(spec, kind) if term.text != text)})


def changes(before: ConceptSpec, offer: ConceptSpec) -> list[Change]:
    """Drops come first, so that a term can go from one list to the other."""
    found = [change for kind in LISTS for change in _list_changes(before, offer, kind)]
    return sorted(found, key=lambda change: list(_VERBS).index(change.verb))


def apply(spec: ConceptSpec, taken: list[Change], made_by: Provenance) -> ConceptSpec:
    """The spec with the changes taken; it remembers which model spoke, and how often."""
    for change in taken:
        spec = _applied(spec, change)
    told = {key: getattr(made_by, key) for key in ("rounds", "model", "prompt_version")}
    return replace(spec, provenance=replace(spec.provenance, reviewer="", **told))


def to_state(offered: list[Change]) -> list[dict]:
    return [asdict(change) for change in offered]


def from_state(offered: list[dict], numbers: list[int]) -> list[Change]:
    rows = (offered[number] for number in sorted(numbers))
    return [Change(row["verb"], row["kind"], Term(**row["term"])) for row in rows]


def _list_changes(before: ConceptSpec, offer: ConceptSpec, kind: str) -> list[Change]:
    old, new = ({t.text.casefold(): t for t in getattr(spec, kind)} for spec in (before, offer))
    drops = [Change("drop", kind, term) for key, term in old.items() if key not in new]
    adds = [Change("add", kind, term) for key, term in new.items() if key not in old]
    both = [(old[key], new[key]) for key in old.keys() & new.keys()]
    moves = [Change("move", kind, replace(b, text=a.text)) for a, b in both if a.certainty != b.certainty]
    return [*drops, *adds, *sorted(moves, key=lambda change: change.term.text)]


def _applied(spec: ConceptSpec, change: Change) -> ConceptSpec:
    text, kind = change.term.text, change.kind
    if change.verb == "drop":
        return without_term(spec, kind, text)
    if change.verb == "move":
        return with_term(spec, kind, text, certainty=change.term.certainty)
    return replace(spec, **{kind: (*getattr(spec, kind), change.term)})
