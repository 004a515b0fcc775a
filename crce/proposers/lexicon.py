"""Terms without a network: from the bundled concepts, and from WordNet's nouns for physical things.

Certainty follows the distance in WordNet's graph: for corefs, synonyms come first, then direct and indirect hyponyms;
for retains, sister terms come first, then their hyponyms, then cousins.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crce.concepts import library
from crce.concepts.edits import with_lists
from crce.concepts.spec import CERTAINTY, ConceptSpec, Term
from crce.errors import CrceError
from crce.proposers.wordnet import Synset, wordnet

CONNECT = (
    "Connect a language model (set OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, then restart), "
    "or write the terms by hand."
)
SENSES = 6  # most senses of a word
DEEP, HIGH = 3, 2  # levels of hyponyms for corefs, and of hypernyms for retains
WHOLE = 20  # levels, more than any word has
REPEATS = 3  # most corefs that contain the target's name
_LEVELS = list(CERTAINTY)
# How WordNet describes "stray", "head", "feeder", "female", "young", "giant".
_ROLE = re.compile(
    r"((an?|any|the|single|mature|immature|young|domestic|domesticated) )*(animal|creature|organism)s?\b"
)
_SEX_OR_AGE = re.compile(r"((an?|any|the|adult|mature|uncastrated|castrated) )*(female|male|young)\b")
_TAXON = re.compile(
    r"^(class|subclass|order|family|genus) |^[A-Z][\w-]*(ia|ata|ota|ida|idae|ega|ornis|us)$"  # Amniota, Sinornis
    r"|[a-z]{2}([vsmn]id|erid|iform|pterous|pteran|pteron|pod|iote|stome|odont)\b"  # bovid, dipterous insect
)
_VULGAR = frozenset(
    ["arse", "ass", "bastard", "bitch", "cock", "cunt", "dick", "fag", "prick", "pussy", "slut", "tit", "whore"]
)


@dataclass(frozen=True)
class Meaning:
    """A sense of a word: its label, more terms than a spec needs (nearest first), and words that describe it."""

    sense: str
    corefs: tuple[Term, ...]
    retains: tuple[Term, ...]
    about: frozenset[str]


def load_concepts(*folders: Path) -> list[ConceptSpec]:
    """The concepts of some folders, sorted by name. Invalid files are skipped."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*.json")):
        try:
            found.append(library.load_spec(path))
        except CrceError:
            continue
    return sorted(found, key=lambda spec: spec.name.casefold())


def find_shipped(target: str, sense: str = "") -> list[ConceptSpec]:
    """The bundled concepts of that name and, if given, that sense; "joker" finds "The Joker"."""
    shipped = load_concepts(library.SHIPPED, library.EXTRAS)
    named = [spec for spec in shipped if _normalise(target) in (_normalise(spec.target), _normalise(spec.name))]
    return [spec for spec in named if sense.casefold() in ("", spec.sense.casefold())]


def find_meanings(target: str) -> list[Meaning]:
    """WordNet's senses of a word that can be drawn, most common first; empty if it does not know the word."""
    senses = _select_drawable(wordnet().find(target))
    labels = _label_senses(target, senses)
    return [_build_meaning(target, synset, label) for synset, label in zip(senses, labels, strict=True)]


def match_sense(target: str, sense: str) -> list[Meaning]:
    """The meanings that match the words of a sense, best first. Raises CrceError listing the known senses."""
    found, asked = find_meanings(target), _extract_words([sense])
    fitting = [meaning for meaning in found if asked & meaning.about]
    if found and not fitting:
        there = ", ".join(meaning.sense or "one without a label" for meaning in found)
        raise CrceError(f"WordNet has no sense {sense!r} of {target!r}, only: {there}. {CONNECT}")
    return sorted(fitting, key=lambda meaning: -len(asked & meaning.about))


def fill(bare: ConceptSpec, meaning: Meaning, most: int) -> ConceptSpec:
    """A spec with a meaning's terms, at most `most` in each list."""
    return with_lists(bare, list(meaning.corefs), list(meaning.retains), most)


def find_nearest(spec: ConceptSpec) -> Meaning | None:
    """The meaning that best matches a spec's sense and terms; None if WordNet does not know the word."""
    texts = {term.text.casefold() for term in (*spec.corefs, *spec.retains)}
    asked = _extract_words([spec.sense])
    shared = lambda meaning: sum(term.text.casefold() in texts for term in (*meaning.corefs, *meaning.retains))  # noqa: E731
    found = find_meanings(spec.target)
    return max(found, key=lambda meaning: (len(asked & meaning.about), shared(meaning)), default=None)


def find_more(spec: ConceptSpec, kind: str, number: int) -> list[Term]:
    """Terms that are new to the spec, first from bundled concepts, then from WordNet."""
    meaning = find_nearest(spec)
    shipped = [term for other in find_shipped(spec.target, spec.sense) for term in getattr(other, kind)]
    held = {spec.target.casefold(), *(term.text.casefold() for term in (*spec.corefs, *spec.retains))}
    offered = (*shipped, *(getattr(meaning, kind) if meaning else ()))
    fresh: dict[str, Term] = {}
    for term in offered:
        if term.text.casefold() not in held:
            fresh.setdefault(term.text.casefold(), term)
    return list(islice(fresh.values(), number))


def _normalise(name: str) -> str:
    return name.casefold().removeprefix("the ").strip()


def _select_drawable(senses: list[Synset]) -> list[Synset]:
    """Drops rare senses about people (a "wolf" as a man), unless they come first. At most `SENSES`."""
    return [s for n, s in enumerate(senses) if n == 0 or s.frequency or s.field != "person"][:SENSES]


def _label_senses(target: str, senses: list[Synset]) -> list[str]:
    """A label for each sense: its field if unique ("animal"), else its hypernym ("club"); "" for a single sense."""
    if len(senses) == 1:
        return [""]
    fields = [synset.field for synset in senses]
    return [s.field if fields.count(s.field) == 1 else _find_parent(target, s) for s in senses]


def _find_parent(target: str, synset: Synset) -> str:
    above = [word for parent in wordnet().hypernyms(synset, 1) for word in parent.words]
    return next((word for word in above if word.casefold() != target.casefold()), synset.field)


def _build_meaning(target: str, synset: Synset, label: str) -> Meaning:
    above = list(wordnet().hypernyms(synset, 9))
    about = _extract_words([label, synset.field, synset.gloss, *(word for higher in above for word in higher.words)])
    return Meaning(
        label, _collect_corefs(target, synset), _collect_retains(target, synset), about - _extract_words([target])
    )


def _collect_corefs(target: str, synset: Synset) -> tuple[Term, ...]:
    kinds = wordnet().hyponyms(synset, DEEP).items()
    rows = [(word, 0, f"another word for {target} (WordNet)") for word in synset.words]
    rows += [(s.words[0], steps, f"a kind of {target} (WordNet)") for s, steps in _rank(kinds) if steps]
    rows = [row for row in rows if row[0].casefold() != target.casefold() and _is_typed(row[0])]
    repeats = [row for row in rows if _contains(row[0], target)]
    return _build_terms(row for row in rows if row not in repeats[REPEATS:])


def _collect_retains(target: str, synset: Synset) -> tuple[Term, ...]:
    """Sister terms, cousins and their hyponyms; never a hyponym or hypernym of the target itself, nor what it may be
    too (a stray, a female)."""
    graph = wordnet()
    up = graph.hypernyms(synset, HIGH)
    near: dict[Synset, tuple[int, Synset]] = {}
    for higher, steps in list(up.items())[1:]:
        for other, down in graph.hyponyms(higher, 2).items():
            near.setdefault(other, (steps + down, higher))
    below, above = graph.hyponyms(synset, WHOLE), graph.hypernyms(synset, WHOLE)
    taken = {word.casefold() for kind in below for word in kind.words}
    ranked = _rank((other, distance) for other, (distance, _) in near.items() if other not in below | above)
    named = ((_find_common_word(other), other, distance) for other, distance in ranked if not _is_role(other, synset))
    rows = ((word, distance - 2, f"also a kind of {near[s][1].words[0]} (WordNet)") for word, s, distance in named)
    return _build_terms(row for row in rows if row[0].casefold() not in {"", *taken} and not _contains(row[0], target))


def _find_common_word(synset: Synset) -> str:
    """The first word that means nothing but a person more often ("tiger"), as it would in a prompt; or ""."""
    graph = wordnet()

    def is_common(word: str) -> bool:
        others = (graph.synsets[number] for number in graph.senses[word.casefold()])
        return all(other.frequency <= synset.frequency for other in others if other.field != "person")

    return next((word for word in synset.words if _is_typed(word) and is_common(word)), "")


def _is_role(synset: Synset, target: Synset) -> bool:
    """Whether it says what an animal does or is for a time, which the target may be as well, and not its kind."""
    gendered = _SEX_OR_AGE.match(synset.gloss) and any(_contains(synset.gloss, word) for word in target.words)
    return bool(_ROLE.match(synset.gloss) or gendered)


def _is_typed(word: str) -> bool:
    """Whether a person may write it: no name of a taxon, and nothing vulgar."""
    return not _TAXON.search(word) and word.casefold() not in _VULGAR


def _rank(found: Iterable[tuple[Synset, int]]) -> list[tuple[Synset, int]]:
    """Sorts by distance, then by frequency, then by number of hyponyms."""
    kinds = wordnet().below
    return sorted(
        found, key=lambda row: (row[1], -row[0].frequency, -len(kinds.get(row[0].number, ())), row[0].words[0])
    )


def _build_terms(rows: Iterable[tuple[str, int, str]]) -> tuple[Term, ...]:
    return tuple(Term(word, _LEVELS[min(steps, 4)], source="lexicon", note=why) for word, steps, why in rows)


def _contains(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def _extract_words(texts: Iterable[str]) -> frozenset[str]:
    """The distinctive words of some texts, in the singular."""
    found = re.findall(r"[a-z]{3,}", " ".join(texts).casefold())
    return frozenset(word.removesuffix("s") for word in found) - {"the", "and", "for", "with", "any", "that", "kind"}
