"""Edits of a spec, and a proposer's revision as a list of changes that the expert accepts or rejects."""

import random
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from crce.concepts.library import LONGEST
from crce.concepts.spec import ConceptSpec, Round, Term, replace_lists
from crce.text import JOINERS

LISTS = {"corefs": "erase", "retains": "keep"}
TERMS = 15  # of each kind, as in the paper
_SIGNS = {"drop": "−", "add": "+", "move": "⇄", "level": "~"}


_MARK = re.compile(r"(?:[-*•–]|\d{1,3}[.)])\s+")
_PHRASE = re.compile(r'[^\S\n]*"[^"\n]*"|(?:[^\n,;]|,(?=\s*(?:(?:[A-Z]\.)+|(?:Jr|Sr|Inc|Ltd|Esq)\b)))+')


@dataclass(frozen=True)
class Change:
    """A term that was dropped, added, moved from the other list, or given another certainty ("level")."""

    verb: str
    kind: str
    term: Term
    why: str = ""

    @property
    def label(self) -> str:
        certainty = f" ({self.term.certainty})" if self.verb != "drop" else ""
        why = f" — {self.why}" if self.why else ""
        return f"{_SIGNS[self.verb]} {LISTS[self.kind]}: {self.term.text}{certainty}{why}"


@dataclass(frozen=True)
class Revision:
    """A proposer's answer to a request: the revised spec, its message, and its reasons by casefolded term."""

    spec: ConceptSpec
    says: str = ""
    why: Mapping[str, str] = field(default_factory=dict)


def with_terms(spec: ConceptSpec, kind: str, texts: list[str]) -> ConceptSpec:
    """Adds phrases to a list; phrases that the spec already has are ignored."""
    taken = {spec.target.casefold(), *(term.text.casefold() for term in (*spec.corefs, *spec.retains))}
    fresh = {text.casefold(): text for text in map(str.strip, texts) if text and text.casefold() not in taken}
    return replace_lists(spec, {kind: (*getattr(spec, kind), *map(Term, fresh.values()))})


def split_phrases(typed: str) -> list[str]:
    """The phrases of a pasted list, separated by lines, semicolons or commas.

    A comma before initials, as in "Washington, D.C." or "Sammy Davis, Jr.", and one between quotation marks separates
    nothing. What marks the entries of a list ("-", "2.") is left out.
    """
    found = [_MARK.sub("", phrase.strip()).strip('"').strip() for phrase in _PHRASE.findall(typed)]
    return [phrase for phrase in found if phrase]


def with_term(spec: ConceptSpec, kind: str, text: str, /, **facts: str) -> ConceptSpec:
    """Changes fields of one term, such as `certainty="low"`."""
    terms = tuple(replace(term, **facts) if term.text == text else term for term in getattr(spec, kind))
    return replace_lists(spec, {kind: terms})


def without_term(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    """Removes one term from a list."""
    return replace_lists(spec, {kind: [term for term in getattr(spec, kind) if term.text != text]})


def changes(before: ConceptSpec, offer: ConceptSpec, why: Mapping[str, str] | None = None) -> list[Change]:
    """The changes that turn one spec into the other: drops first, then additions, moves and new certainties.

    why: reasons by casefolded text (`Revision.why`); an added term has its reason in its note.
    """
    why, old, new = why or {}, _index_lists(before), _index_lists(offer)
    dropped = [Change("drop", *old[key]) for key in old if key not in new]
    found = [Change(verb, *new[key]) for key in new if (verb := _classify(old.get(key), new[key]))]
    made = [replace(change, why=_find_reason(change, why)) for change in [*dropped, *found]]
    return sorted(made, key=lambda change: list(_SIGNS).index(change.verb))


def apply(spec: ConceptSpec, taken: list[Change], round: Round) -> ConceptSpec:
    """Applies changes and records the round in the provenance; an earlier review no longer holds.

    Only rounds of a proposer that answer a request count in `provenance.rounds`, not its first proposal.
    """
    for change in taken:
        spec = _apply_change(spec, change)
    told = replace(round, changes=tuple(change.label for change in taken))
    made = replace(
        spec.provenance,
        reviewer="",
        rounds=spec.provenance.rounds + (round.by != "expert" and bool(round.wish)),
        model=round.model or spec.provenance.model,
        prompt_version=round.prompt_version or spec.provenance.prompt_version,
        history=(*spec.provenance.history, told),
    )
    return replace(spec, provenance=made)


def with_expert_edits(spec: ConceptSpec, since: ConceptSpec) -> ConceptSpec:
    """Records what changed since another state of the spec in its history, as a round of the expert."""
    edits = tuple(change.label for change in changes(since, spec))
    if not edits:
        return spec
    history = (*spec.provenance.history, Round(by="expert", changes=edits))
    return replace(spec, provenance=replace(spec.provenance, history=history))


def to_state(offered: list[Change]) -> list[dict]:
    """The changes as JSON values, for a session's state."""
    return [asdict(change) for change in offered]


def from_state(offered: list[dict], numbers: list[int]) -> list[Change]:
    """The changes with these positions in what `to_state` returned."""
    return [Change(**{**row, "term": Term(**row["term"])}) for row in (offered[number] for number in sorted(numbers))]


def with_lists(spec: ConceptSpec, corefs: list[Term], retains: list[Term], most: int) -> ConceptSpec:
    """Replaces both lists: tidied, cut to `most` terms each, and split with the spec's seed.

    Terms that the spec already has keep their spelling, split, source and note: a proposer only repeats them.
    """
    lists = dict(zip(LISTS, tidy(corefs, retains, spec), strict=True))
    before, seed = (*spec.corefs, *spec.retains), spec.provenance.split_seed
    kept = {kind: _restore_known(terms[:most], before) for kind, terms in lists.items()}
    return replace_lists(spec, {kind: draw_split(terms, seed, before) for kind, terms in kept.items()})


def tidy(corefs: list[Term], retains: list[Term], spec: ConceptSpec) -> tuple[list[Term], list[Term]]:
    """Removes the target, duplicates, and texts that are empty or too long.

    A term in both lists is removed from both. If the spec has it in one of them, it moves to the other.
    """
    found, stood = {"corefs": _index(corefs), "retains": _index(retains)}, _index_lists(spec)
    both = found["corefs"].keys() & found["retains"].keys()
    refused = {spec.target.casefold(), spec.name.casefold()} | (both - stood.keys())
    left = {key: stood[key][0] for key in both & stood.keys()}
    tidied = {
        kind: [term for key, term in terms.items() if key not in refused and left.get(key) != kind]
        for kind, terms in found.items()
    }
    return tidied["corefs"], tidied["retains"]


def draw_split(terms: Iterable[Term], seed: int, before: Iterable[Term] = ()) -> tuple[Term, ...]:
    """Holds out a random third (5 of 15, §3.2.2); training terms come first. Terms in `before` keep their split."""
    terms = list(terms)
    fixed = {term.text.casefold(): term.split for term in before}
    held_out = {t.text for t in terms if fixed.get(t.text.casefold()) == "test"}
    free = [t.text for t in terms if t.text.casefold() not in fixed]
    wanted = min(max(len(terms) // 3 - len(held_out), 0), len(free))
    held_out |= set(random.Random(seed).sample(free, wanted))
    split = [replace(t, split="test" if t.text in held_out else "train") for t in terms]
    return tuple(sorted(split, key=lambda t: (t.split == "test", -t.weight)))


def clean(text: str) -> str:
    """Reduces a text to one line of visible characters and the joiners between them."""
    visible = (c for c in text if c in JOINERS or unicodedata.category(c) not in ("Cf", "Co", "Cs", "Cn"))
    spaced = (" " if c not in JOINERS and unicodedata.category(c)[0] in "CZ" else c for c in visible)
    line = " ".join("".join(spaced).split())
    return line if line.strip(f" {JOINERS}") else ""


def _index_lists(spec: ConceptSpec) -> dict[str, tuple[str, Term]]:
    return {term.text.casefold(): (kind, term) for kind in LISTS for term in getattr(spec, kind)}


def _classify(old: tuple[str, Term] | None, new: tuple[str, Term]) -> str:
    """The verb for a term's change, or "". A move includes a change of certainty."""
    if old is None:
        return "add"
    if old[0] != new[0]:
        return "move"
    return "level" if old[1].certainty != new[1].certainty else ""


def _find_reason(change: Change, why: Mapping[str, str]) -> str:
    return why.get(change.term.text.casefold(), change.term.note[:LONGEST] if change.verb == "add" else "")


def _apply_change(spec: ConceptSpec, change: Change) -> ConceptSpec:
    term, kind = change.term, change.kind
    if change.verb == "level":
        return with_term(spec, kind, term.text, certainty=term.certainty)
    if change.verb == "drop":
        return without_term(spec, kind, term.text)
    for other in LISTS:
        spec = without_term(spec, other, term.text)
    return replace_lists(spec, {kind: (*getattr(spec, kind), term)})


def _index(terms: list[Term]) -> dict[str, Term]:
    found: dict[str, Term] = {}
    for term in terms:
        if 0 < len(term.text) <= LONGEST:
            found.setdefault(term.text.casefold(), term)
    return found


def _restore_known(terms: list[Term], before: tuple[Term, ...]) -> list[Term]:
    known = {term.text.casefold(): term for term in before}
    return [replace(known.get(t.text.casefold(), t), certainty=t.certainty) for t in terms]
