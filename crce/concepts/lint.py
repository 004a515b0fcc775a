"""What is doubtful in a spec's lists, term by term, with the reason: advice while curating, a gate for the dataset.

The rules are those of the paper's Appendix A as far as text can show them. They know words, not the world: that a
retain is no kind of the target, or a fact is true, remains the expert's to see.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from crce.concepts.spec import ConceptSpec, Term

MODIFIED = 3  # corefs of a list that may be the target's name with something before or after it
WORDS = 8  # of a phrase; the longest printed one has seven
NAMED = ("ip", "celebrity")  # whoever has a name is drawn wherever it stands; an object's name may be a mere kind
# Words that fit too many things to show one: a phrase of nothing else is vague.
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
    """A doubt about a term, or about a whole list where `text` is empty. What the paper prints is only warned of."""

    kind: str
    text: str
    rule: str
    reason: str
    severity: str = "error"


@dataclass(frozen=True)
class _Case:
    """What the rules look at."""

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
        return words(self.spec.target)


_Found = Iterator[tuple[str, Term | None, str]]


def lint(
    spec: ConceptSpec,
    others: Iterable[ConceptSpec] = (),
    tokens: Mapping[str, int] | None = None,
    limit: int = 77,
    drawn: Mapping[str, tuple[int, int]] | None = None,
) -> list[Finding]:
    """The findings, rule by rule.

    others: the other concepts of the library; the spec itself may be among them. tokens and limit: lengths in the
    base model's own tokens. drawn: text → (yes, of), pictures that show what they should, of those drawn.
    """
    case = _Case(spec, tuple(o for o in others if o.slug != spec.slug), tokens or {}, limit, drawn or {})
    return [
        Finding(kind, term.text if term else "", rule, reason, _severity(case, kind, term))
        for rule, found in RULES.items()
        for kind, term, reason in found(case)
    ]


@lru_cache(maxsize=2**14)
def words(text: str) -> tuple[str, ...]:
    """How the rules read a phrase: lower case, no article before it. A hyphenated compound is one word."""
    found = [w.strip("'-.") for w in re.findall(r"[\w'.&-]+", text.casefold().replace("’", "'"))]
    return tuple(w for i, w in enumerate(found) if w and not (i == 0 and w in ("the", "a", "an") and found[1:]))


def _key(text: str) -> tuple[str, ...]:
    """The same for "Spider-Man", "spider man" and "the Spider-Man"."""
    return words(text.replace("-", " ")) or (text,)


def _inside(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether a phrase stands in a longer one, word by word."""
    starts = range(len(whole) - len(part) + 1)
    return 0 < len(part) < len(whole) and any(whole[i : i + len(part)] == part for i in starts)


def _severity(case: _Case, kind: str, term: Term | None) -> str:
    concerned = [term] if term else getattr(case.spec, kind)
    return "warning" if concerned and all(t.source == "paper" for t in concerned) else "error"


def _duplicate(case: _Case) -> _Found:
    seen = {_key(case.spec.target): "the target", _key(case.spec.name): "the target"}
    for kind, term in case.terms:
        if place := seen.get(_key(term.text)):
            yield kind, term, f"is {place} again"
        seen.setdefault(_key(term.text), f"{term.text!r} of the {kind}")


def _leak(case: _Case) -> _Found:
    own = {case.target, words(case.spec.name)}
    others = [(words(other.target), other) for other in case.others]
    foreign = [(name, other) for name, other in others if name not in own and not _inside(name, case.target)]
    for term in case.spec.corefs:
        said = words(term.text)
        for name, other in foreign:
            if name == said or other.category in NAMED and _inside(name, said):
                yield "corefs", term, f"names {other.name}, another concept: the model would draw that"
        for match in _LENDING.finditer(term.text):
            if words(match[1] or match[2]) not in own:
                yield "corefs", term, f"names {(match[1] or match[2])!r}, whom the model might draw instead"


def _contains(case: _Case) -> _Found:
    for coref in case.spec.corefs:
        for retain in case.spec.retains:
            if _inside(words(retain.text), words(coref.text)):
                yield "corefs", coref, f"holds the retain {retain.text!r}, which erasing it would take along"
            if _inside(words(coref.text), words(retain.text)):
                yield "retains", retain, f"holds the coref {coref.text!r}, which keeping it would bring back"


def _vague(case: _Case) -> _Found:
    for kind, term in case.terms:
        if set(words(term.text)) <= EMPTY:
            yield kind, term, "fits many others: say what is seen in the picture"


def _long(case: _Case) -> _Found:
    for kind, term in case.terms:
        count, tokens = len(words(term.text)), case.tokens.get(term.text, 0)
        if tokens > case.limit:
            yield kind, term, f"has {tokens} tokens, and the model reads {case.limit}: the rest is cut off"
        elif count > WORDS:
            yield kind, term, f"has {count} words; a model follows at most {WORDS} of them closely"


def _modifiers(case: _Case) -> _Found:
    # What was printed stands, so it comes first and ours has to give way.
    order = sorted(case.spec.corefs, key=lambda term: (term.source != "paper", -term.weight))
    modified = [term for term in order if _inside(case.target, words(term.text))]
    for term in modified[MODIFIED:]:
        yield (
            "corefs",
            term,
            f"is the name with an addition, as {MODIFIED} others are already: the edit learns one word",
        )


def _sense(case: _Case) -> _Found:
    twins = [other for other in case.others if words(other.target) == case.target]
    if not (case.spec.sense or twins) or not case.spec.retains:
        return
    theirs = {words(term.text) for other in twins for term in other.corefs}
    if not any(_inside(case.target, said) or said in theirs for said in (words(t.text) for t in case.spec.retains)):
        yield "retains", None, f"keep nothing of another sense of {case.spec.target!r}; add one, such as its full name"


def _taken(case: _Case) -> _Found:
    owners: dict[tuple[str, ...], list[str]] = {}
    for other in case.others:
        for key in {_key(term.text) for term in other.corefs}:
            owners.setdefault(key, []).append(other.name)
    for term in case.spec.corefs:
        if names := owners.get(_key(term.text)):
            yield "corefs", term, f"is a coref of {' and of '.join(names)} too: leave it to one"


def _dead(case: _Case) -> _Found:
    for kind, term in case.terms:
        yes, of = case.drawn.get(term.text, (0, 0))
        if yes < of / 2:
            what = case.spec.target if kind == "corefs" else "it"
            yield kind, term, f"is dead for this model: {yes} of {of} pictures of it show {what}"


RULES = {
    "duplicate": _duplicate,
    "leak": _leak,
    "contains": _contains,
    "vague": _vague,
    "long": _long,
    "modifiers": _modifiers,
    "sense": _sense,
    "taken": _taken,
    "dead": _dead,
}
