"""What is known without a network: the bundled concepts, and WordNet's nouns of physical things.

Certainty is distance in WordNet's graph: synonyms are nearest, kinds of kinds further; of the neighbours, sisters
are nearest, then their kinds, then cousins.
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
    "Connect a language model (set OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, then start again), "
    "or write the terms by hand."
)
SENSES = 6  # of a word that are worth a list of their own
DEEP, HIGH = 3, 2  # steps down for corefs and up for retains
REPEATS = 3  # corefs that are the target with a word before or after it
_LEVELS = list(CERTAINTY)


@dataclass(frozen=True)
class Meaning:
    """A sense of a word: how to tell it from the others, and more terms than a spec needs, nearest first."""

    sense: str
    corefs: tuple[Term, ...]
    retains: tuple[Term, ...]
    about: frozenset[str]


def concepts(*folders: Path) -> list[ConceptSpec]:
    """The concepts of some folders as they are shipped, by name; a broken file is left out."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*.json")):
        try:
            found.append(library.load_spec(path))
        except CrceError:
            continue
    return sorted(found, key=lambda spec: spec.name.casefold())


def known(target: str, sense: str = "") -> list[ConceptSpec]:
    """The bundled concepts of that name, or the one of that sense; "joker" is "The Joker"."""
    shipped = concepts(library.SHIPPED, library.EXTRAS)
    named = [spec for spec in shipped if _bare(target) in (_bare(spec.target), _bare(spec.name))]
    return [spec for spec in named if sense.casefold() in ("", spec.sense.casefold())]


def meanings(target: str) -> list[Meaning]:
    """WordNet's senses of a word that can be drawn, commonest first. Empty where it knows none."""
    senses = _drawable(wordnet().find(target))
    labels = _labels(target, senses)
    return [_meaning(target, synset, label) for synset, label in zip(senses, labels, strict=True)]


def meant(target: str, sense: str) -> list[Meaning]:
    """The meanings that fit the words of a sense, best first. Raises CrceError naming those there are."""
    found, asked = meanings(target), _words([sense])
    fitting = [meaning for meaning in found if asked & meaning.about]
    if found and not fitting:
        there = ", ".join(meaning.sense or "only one" for meaning in found)
        raise CrceError(f"WordNet knows no sense {sense!r} of {target!r}. It knows: {there}. {CONNECT}")
    return sorted(fitting, key=lambda meaning: -len(asked & meaning.about))


def filled(bare: ConceptSpec, meaning: Meaning, most: int) -> ConceptSpec:
    return with_lists(bare, list(meaning.corefs), list(meaning.retains), most)


def nearest(spec: ConceptSpec) -> Meaning | None:
    """The meaning that a spec's sense and terms speak of; None where WordNet does not know the word."""
    texts = {term.text.casefold() for term in (*spec.corefs, *spec.retains)}
    asked = _words([spec.sense])
    shared = lambda meaning: sum(term.text.casefold() in texts for term in (*meaning.corefs, *meaning.retains))  # noqa: E731
    found = meanings(spec.target)
    return max(found, key=lambda meaning: (len(asked & meaning.about), shared(meaning)), default=None)


def more(spec: ConceptSpec, kind: str, number: int) -> list[Term]:
    """Terms that the spec does not hold yet, of a bundled concept first, then of WordNet."""
    meaning = nearest(spec)
    shipped = [term for other in known(spec.target, spec.sense) for term in getattr(other, kind)]
    held = {spec.target.casefold(), *(term.text.casefold() for term in (*spec.corefs, *spec.retains))}
    fresh = (term for term in (*shipped, *(getattr(meaning, kind) if meaning else ())) if _new(term, held))
    return list(islice(fresh, number))


def _new(term: Term, held: set[str]) -> bool:
    key = term.text.casefold()
    return key not in held and not held.add(key)


def _bare(name: str) -> str:
    return name.casefold().removeprefix("the ").strip()


def _drawable(senses: list[Synset]) -> list[Synset]:
    """People are compared with animals and things ("wolf"): such a sense must be the first, or one that was met."""
    return [s for n, s in enumerate(senses) if n == 0 or s.frequency or s.field != "person"][:SENSES]


def _labels(target: str, senses: list[Synset]) -> list[str]:
    """Nothing for an only sense; "animal" where one sense is of one; else what it is a kind of ("club")."""
    if len(senses) == 1:
        return [""]
    fields = [synset.field for synset in senses]
    return [s.field if fields.count(s.field) == 1 else _parent(target, s) for s in senses]


def _parent(target: str, synset: Synset) -> str:
    above = [word for parent in wordnet().hypernyms(synset, 1) for word in parent.words]
    return next((word for word in above if word.casefold() != target.casefold()), synset.field)


def _meaning(target: str, synset: Synset, label: str) -> Meaning:
    above = list(wordnet().hypernyms(synset, 9))
    about = _words([label, synset.field, synset.gloss, *(word for higher in above for word in higher.words)])
    return Meaning(label, _corefs(target, synset), _retains(target, synset), about - _words([target]))


def _corefs(target: str, synset: Synset) -> tuple[Term, ...]:
    kinds = wordnet().hyponyms(synset, DEEP).items()
    rows = [(word, 0, f"another word for {target} (WordNet)") for word in synset.words]
    rows += [(s.words[0], steps, f"a kind of {target} (WordNet)") for s, steps in _ranked(kinds) if steps]
    rows = [row for row in rows if row[0].casefold() != target.casefold()]
    repeats = [row for row in rows if _holds(row[0], target)]
    return _terms(row for row in rows if row not in repeats[REPEATS:])


def _retains(target: str, synset: Synset) -> tuple[Term, ...]:
    """Sisters, cousins and their kinds; never a kind of the target itself, nor what it is a kind of."""
    graph = wordnet()
    up = graph.hypernyms(synset, HIGH)
    near: dict[Synset, tuple[int, Synset]] = {}
    for higher, steps in list(up.items())[1:]:
        for other, down in graph.hyponyms(higher, 2).items():
            near.setdefault(other, (steps + down, higher))
    own = graph.hyponyms(synset, 9).keys() | graph.hypernyms(synset, 9).keys()
    ranked = _ranked((other, distance) for other, (distance, _) in near.items() if other not in own)
    rows = ((s.words[0], distance - 2, f"also a kind of {near[s][1].words[0]} (WordNet)") for s, distance in ranked)
    return _terms(row for row in rows if not _holds(row[0], target))


def _ranked(found: Iterable[tuple[Synset, int]]) -> list[tuple[Synset, int]]:
    """By distance; of the equally near, those that were met most, then those that have most kinds."""
    kinds = wordnet().below
    return sorted(
        found, key=lambda row: (row[1], -row[0].frequency, -len(kinds.get(row[0].number, ())), row[0].words[0])
    )


def _terms(rows: Iterable[tuple[str, int, str]]) -> tuple[Term, ...]:
    return tuple(Term(word, _LEVELS[min(steps, 4)], source="lexicon", note=why) for word, steps, why in rows)


def _holds(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def _words(texts: Iterable[str]) -> frozenset[str]:
    """The telling words of some texts, in the singular."""
    found = re.findall(r"[a-z]{3,}", " ".join(texts).casefold())
    return frozenset(word.removesuffix("s") for word in found) - {"the", "and", "for", "with", "any", "that", "kind"}
