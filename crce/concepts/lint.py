"""Finds doubtful terms in a spec's lists: advice during curation, and a gate for the dataset.

The rules are those of the paper's Appendix A that text alone can check. They cannot tell whether a retain is a kind of
the target, or whether a fact is true: that is up to the expert.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from crce.concepts.spec import ConceptSpec, Term

MODIFIED = 3  # how many corefs may be the target's name with an addition
WORDS = 8  # most words in a phrase; the longest one in the paper has seven
NAMED = ("ip", "celebrity")  # their names are drawn wherever they appear; an object's name may be part of a compound
# Words that fit too many things: a phrase made only of these is vague.
_EMPTY = """a an and by for from in of the to with
thing things object item stuff something animal creature being person people human man woman boy girl
character figure hero heroine villain protagonist icon symbol star superstar megastar celebrity legend idol
actor actress performer artist singer musician producer director athlete leader veteran duo
famous popular well-known iconic legendary talented charismatic beautiful pretty cute nice good great best
big small old young modern typical common various different international global world-famous dramatic
film movie screen stage role roles presence sensation box-office type kind example image picture photo"""
EMPTY = frozenset(_EMPTY.split())
_LENDING = re.compile(r"\b(?:with|by) ([A-Z]\w+(?: [A-Z]\w+)*)|\b([A-Z]\w+(?: [A-Z]\w+)*)['’]s\b")


@dataclass(frozen=True)
class Finding:
    """A doubt about a term, or about the whole list if `text` is empty. Terms from the paper only get a warning."""

    kind: str
    text: str
    rule: str
    reason: str
    severity: str = "error"


@dataclass(frozen=True)
class _Case:
    """The input of the rules: see `lint`."""

    spec: ConceptSpec
    others: tuple[ConceptSpec, ...]
    tokens: Mapping[str, int]
    limit: int
    drawn: Mapping[str, tuple[int, int]]

    @property
    def terms(self) -> list[tuple[str, Term]]:
        return [(kind, term) for kind in ("corefs", "retains") for term in getattr(self.spec, kind)]

    @property
    def target(self) -> tuple[str, ...]:
        return split_words(self.spec.target)


_Doubts = Iterator[tuple[str, Term | None, str]]


def lint(
    spec: ConceptSpec,
    others: Iterable[ConceptSpec] = (),
    tokens: Mapping[str, int] | None = None,
    limit: int = 77,
    drawn: Mapping[str, tuple[int, int]] | None = None,
) -> list[Finding]:
    """Checks a spec against all rules.

    others: the other concepts of the library; the spec itself is ignored. tokens, limit: lengths and the maximum length
    in the base model's tokens. drawn: text → (yes, of), how many of the drawn pictures show what they should.
    """
    case = _Case(spec, tuple(o for o in others if o.slug != spec.slug), tokens or {}, limit, drawn or {})
    return [
        Finding(kind, term.text if term else "", rule, reason, _grade(case, kind, term))
        for rule, found in RULES.items()
        for kind, term, reason in found(case)
    ]


@lru_cache(maxsize=2**14)
def split_words(text: str) -> tuple[str, ...]:
    """The words of a phrase in lower case, without a leading article. A hyphenated compound is one word."""
    found = [w.strip("'-.") for w in re.findall(r"[\w'.&-]+", text.casefold().replace("’", "'"))]
    return tuple(w for i, w in enumerate(found) if w and not (i == 0 and w in ("the", "a", "an") and found[1:]))


def _key(text: str) -> tuple[str, ...]:
    """A key that is the same for "Spider-Man", "spider man" and "the Spider-Man"."""
    return split_words(text.replace("-", " ")) or (text,)


def _inside(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether the words of `part` appear within a longer phrase."""
    starts = range(len(whole) - len(part) + 1)
    return 0 < len(part) < len(whole) and any(whole[i : i + len(part)] == part for i in starts)


def _grade(case: _Case, kind: str, term: Term | None) -> str:
    concerned = [term] if term else getattr(case.spec, kind)
    return "warning" if concerned and all(t.source == "paper" for t in concerned) else "error"


def _check_duplicate(case: _Case) -> _Doubts:
    seen = {_key(case.spec.target): "the target", _key(case.spec.name): "the target"}
    for kind, term in case.terms:
        if place := seen.get(_key(term.text)):
            yield kind, term, f"is the same as {place}"
        seen.setdefault(_key(term.text), f"{term.text!r} of the {kind}")


def _check_leak(case: _Case) -> _Doubts:
    own = {case.target, split_words(case.spec.name)}
    others = [(split_words(other.target), other) for other in case.others]
    foreign = [(name, other) for name, other in others if name not in own and not _inside(name, case.target)]
    for term in case.spec.corefs:
        said = split_words(term.text)
        for name, other in foreign:
            if said and name == said or other.category in NAMED and _inside(name, said):
                yield "corefs", term, f"names another concept, {other.name}, which the model would draw instead"
        for match in _LENDING.finditer(term.text):
            if split_words(match[1] or match[2]) not in own:
                yield "corefs", term, f"names {(match[1] or match[2])!r}, which the model might draw instead"


def _check_contains(case: _Case) -> _Doubts:
    for coref in case.spec.corefs:
        for retain in case.spec.retains:
            if _inside(split_words(retain.text), split_words(coref.text)):
                yield "corefs", coref, f"contains the retain {retain.text!r}, which would be erased with it"
            if _inside(split_words(coref.text), split_words(retain.text)):
                yield "retains", retain, f"contains the coref {coref.text!r}, which would be kept with it"


def _check_vague(case: _Case) -> _Doubts:
    for kind, term in case.terms:
        drawn = any(unicodedata.category(sign) == "So" for sign in term.text)  # an emoji says what it shows
        if not drawn and set(split_words(term.text)) <= EMPTY:
            yield kind, term, "is too vague: describe what the picture shows"


def _check_long(case: _Case) -> _Doubts:
    for kind, term in case.terms:
        count, tokens = len(split_words(term.text)), case.tokens.get(term.text, 0)
        if tokens > case.limit:
            yield kind, term, f"has {tokens} tokens, and the model reads {case.limit}: the rest is cut off"
        elif count > WORDS:
            yield kind, term, f"has {count} words; use at most {WORDS}"


def _check_modifiers(case: _Case) -> _Doubts:
    # The paper's terms are fixed, so they come first and ours have to change.
    order = sorted(case.spec.corefs, key=lambda term: (term.source != "paper", -term.weight))
    modified = [term for term in order if _inside(case.target, split_words(term.text))]
    for term in modified[MODIFIED:]:
        why = f"is the target's name with an addition, as {MODIFIED} others already are: the edit would learn one word"
        yield "corefs", term, why


def _check_sense(case: _Case) -> _Doubts:
    twins = [other for other in case.others if split_words(other.target) == case.target]
    if not (case.spec.sense or twins) or not case.spec.retains:
        return
    theirs = {split_words(term.text) for other in twins for term in other.corefs}
    if not any(
        _inside(case.target, said) or said in theirs for said in (split_words(t.text) for t in case.spec.retains)
    ):
        yield "retains", None, f"include no other sense of {case.spec.target!r}; add one, such as its full name"


def _check_taken(case: _Case) -> _Doubts:
    owners: dict[tuple[str, ...], list[str]] = {}
    for other in case.others:
        for key in {_key(term.text) for term in other.corefs}:
            owners.setdefault(key, []).append(other.name)
    for term in case.spec.corefs:
        if names := owners.get(_key(term.text)):
            yield "corefs", term, f"is also a coref of {' and of '.join(names)}: keep it in one of them"


def _check_dead(case: _Case) -> _Doubts:
    for kind, term in case.terms:
        yes, of = case.drawn.get(term.text, (0, 0))
        if yes < of / 2:
            what = case.spec.target if kind == "corefs" else "it"
            yield kind, term, f"cannot be drawn by this model: {yes} of {of} pictures of it show {what}"


RULES = {
    "duplicate": _check_duplicate,
    "leak": _check_leak,
    "contains": _check_contains,
    "vague": _check_vague,
    "long": _check_long,
    "modifiers": _check_modifiers,
    "sense": _check_sense,
    "taken": _check_taken,
    "dead": _check_dead,
}
