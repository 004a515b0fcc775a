"""The requests that the lexicon understands if no language model is connected; `HELP` lists them."""

import re
from collections.abc import Callable
from dataclasses import replace

from crce.concepts import edits
from crce.concepts.edits import LISTS, Revision
from crce.concepts.spec import CERTAINTY, ConceptSpec, Term
from crce.proposers import lexicon

NUMBER = 5  # how many terms "more" adds
HELP = (
    'Without an LLM I understand: "more corefs", "more retains", "drop X", "drop X, Y", "X is a coref", '
    f'"X is a retain", "set X to low" ({", ".join(CERTAINTY)}), "the other sense", "help".'
)
WISHES = ("more corefs", "more retains", "the other sense", "help")  # to choose from, where nobody types
_LEVEL = "|".join(sorted(CERTAINTY, key=len, reverse=True))
_OTHER = {"corefs": "retains", "retains": "corefs"}


def follow(spec: ConceptSpec, request: str) -> Revision:
    """Revises the lists as requested. An unknown or impossible request changes nothing and gets an explanation."""
    for pattern, answer in _REQUESTS.items():
        if match := re.fullmatch(pattern, request.strip().rstrip(".!"), re.IGNORECASE):
            return answer(spec, *match.groups())
    return Revision(spec, f"No LLM is connected, and I do not understand {request!r} without one. {HELP}")


def _help(spec: ConceptSpec) -> Revision:
    return Revision(spec, HELP)


def _more(spec: ConceptSpec, asked: str) -> Revision:
    kind = "corefs" if asked[0].lower() == "c" else "retains"
    fresh = lexicon.find_more(spec, kind, NUMBER)
    if not fresh:
        return Revision(spec, f"The lexicon knows no more {kind} of {spec.name!r}.")
    offer = _with_lists(spec, **{kind: [*getattr(spec, kind), *fresh]})
    return Revision(offer, f"{len(fresh)} more {kind} from the lexicon.")


def _improve(spec: ConceptSpec) -> Revision:
    """What the button without a request asks for: more of both lists is all that the lexicon can do."""
    fresh = {kind: lexicon.find_more(spec, kind, NUMBER) for kind in LISTS}
    if not any(fresh.values()):
        return Revision(spec, f"The lexicon knows no more terms for {spec.name!r}.")
    offer = _with_lists(spec, **{kind: [*getattr(spec, kind), *terms] for kind, terms in fresh.items()})
    counts = " and ".join(f"{len(terms)} more {kind}" for kind, terms in fresh.items())
    return Revision(offer, f"{counts} from the lexicon. It cannot judge the terms that are there.")


def _drop(spec: ConceptSpec, asked: str) -> Revision:
    names = [asked] if _find(spec, asked) else re.split(r"\s*,\s*(?:and\s+)?", asked)
    found = {name: _find(spec, name) for name in names}
    if missing := [name for name, hit in found.items() if not hit]:
        return _report_unknown(spec, ", ".join(missing))
    dropped, offer = [hit for hit in found.values() if hit], spec
    for kind, term in dropped:
        offer = edits.without_term(offer, kind, term.text)
    return Revision(offer, f"Dropped: {', '.join(term.text for _, term in dropped)}.")


def _assign(spec: ConceptSpec, name: str, asked: str) -> Revision:
    """Moves a term to a list, or adds it."""
    kind = "corefs" if asked[0].lower() == "c" else "retains"
    held, term = _find(spec, name) or ("", Term(_strip_quotes(name)))
    if held == kind:
        return Revision(spec, f"{term.text!r} is already among the {kind}.")
    bare = edits.without_term(spec, _OTHER[kind], term.text)
    offer = _with_lists(bare, **{kind: [*getattr(bare, kind), term]})
    if not _find(offer, name):
        return Revision(spec, f"{name!r} is the concept itself, or too long to be a term.")
    return Revision(offer, f"{term.text!r} is {'moved to' if held else 'added to'} the {kind}.")


def _set(spec: ConceptSpec, name: str, level: str) -> Revision:
    if not (found := _find(spec, name)):
        return _report_unknown(spec, name)
    kind, term = found
    level = " ".join(level.lower().split())
    return Revision(edits.with_term(spec, kind, term.text, certainty=level), f"{term.text!r} is now {level}.")


def _other_sense(spec: ConceptSpec) -> Revision:
    """Switches to the next sense, cyclically: of CorefConcept, or of WordNet if CorefConcept has only one."""
    senses = lexicon.find_shipped(spec.target)
    number = next((n for n, other in enumerate(senses) if other.slug == spec.slug), 0)
    if len(senses) < 2:
        found, now = lexicon.find_meanings(spec.target), lexicon.find_nearest(spec)
        blanks = [replace(spec, sense=meaning.sense, corefs=(), retains=()) for meaning in found]
        senses = [lexicon.fill(bare, meaning, edits.TERMS) for bare, meaning in zip(blanks, found, strict=True)]
        number = found.index(now) if now else 0
    if len(senses) < 2:
        return Revision(spec, f"The lexicon knows no other sense of {spec.target!r}.")
    other = senses[(number + 1) % len(senses)]
    offer = replace(spec, sense=other.sense, corefs=other.corefs, retains=other.retains)
    return Revision(offer, f"These are the lists for {other.name}. To keep both senses, save it as a separate concept.")


def _with_lists(spec: ConceptSpec, **lists: list[Term]) -> ConceptSpec:
    both = {kind: lists.get(kind, list(getattr(spec, kind))) for kind in LISTS}
    return edits.with_lists(spec, **both, most=max(map(len, both.values())))


def _find(spec: ConceptSpec, name: str) -> tuple[str, Term] | None:
    name = _strip_quotes(name).casefold()
    terms = ((kind, term) for kind in LISTS for term in getattr(spec, kind))
    return next(((kind, term) for kind, term in terms if term.text.casefold() == name), None)


def _strip_quotes(name: str) -> str:
    return name.strip("\"'“”‘’ ")


def _report_unknown(spec: ConceptSpec, name: str) -> Revision:
    return Revision(spec, f"{name!r} is not in the lists of {spec.name}. Write the term as it appears there.")


_REQUESTS: dict[str, Callable[..., Revision]] = {
    r"(?:help|\?|what can you do\??)": _help,
    r"(?:add |give me |propose )?(?:some )?more (corefs?|retains?)": _more,
    r"improve (?:both|the) lists(?:; keep what is right)?": _improve,
    r"(?:drop|remove|delete) (.+)": _drop,
    rf"(?:set|make|put) (.+?) (?:to |as )?({_LEVEL})": _set,
    r"(.+?) (?:is|are) (?:an? )?(corefs?|retains?)": _assign,
    r"(?:the |show me the )?other (?:sense|meaning)": _other_sense,
}
