"""Reads WordNet's nouns for physical things from the file that assets/build/lexicon.py writes.

We have our own reader because nltk's needs a dozen uncompressed files (30 MB), and we need only three lookups: the
senses of a word, the hypernyms of a sense and its hyponyms.
"""

import lzma
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from crce.files import DATA

FILE = DATA / "assets" / "lexicon" / "wordnet.tsv.xz"
_SINGULAR = ((r"ies$", "y"), (r"ves$", "f"), (r"es$", ""), (r"s$", ""))


@dataclass(frozen=True)
class Synset:
    """A sense. words: most common first; above: its direct hypernyms; frequency: its count in WordNet's corpora."""

    number: int
    field: str
    above: tuple[int, ...]
    words: tuple[str, ...]
    frequency: int
    gloss: str


@dataclass(frozen=True)
class WordNet:
    """Synsets by number. below: hyponyms of each; senses: lower-case word → its synsets, most common first."""

    synsets: tuple[Synset, ...]
    below: dict[int, tuple[int, ...]]
    senses: dict[str, tuple[int, ...]]

    def find(self, word: str) -> list[Synset]:
        """The senses of a word or of its singular, most common first; empty if the word is unknown."""
        word = " ".join(word.casefold().split())
        forms = [word, *(re.sub(end, other, word) for end, other in _SINGULAR if re.search(end, word))]
        numbers = next((self.senses[form] for form in forms if form in self.senses), ())
        return [self.synsets[number] for number in numbers]

    def hyponyms(self, synset: Synset, depth: int) -> dict[Synset, int]:
        """Its hyponyms with their distance, including itself at 0."""
        return self._walk(synset, depth, lambda number: self.below.get(number, ()))

    def hypernyms(self, synset: Synset, depth: int) -> dict[Synset, int]:
        """Its hypernyms with their distance, including itself at 0."""
        return self._walk(synset, depth, lambda number: self.synsets[number].above)

    def _walk(self, synset: Synset, depth: int, links: Callable[[int], Iterable[int]]) -> dict[Synset, int]:
        found, front = {synset.number: 0}, [synset.number]
        for steps in range(1, depth + 1):
            front = [n for number in front for n in links(number) if n not in found]
            found.update(dict.fromkeys(front, steps))
        return {self.synsets[number]: steps for number, steps in found.items()}


@cache
def wordnet() -> WordNet:
    """Loads the file, once per process (a third of a second)."""
    rows = lzma.decompress(FILE.read_bytes()).decode().splitlines()
    synsets: list[Synset] = []
    senses: dict[str, list[tuple[int, int]]] = {}
    below: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        field, above, listed, gloss = row.split("\t")
        words = [word.split("|") for word in listed.split(",")]
        parents = tuple(map(int, above.split(","))) if above else ()
        for word, rank, _ in words:
            senses.setdefault(word.casefold(), []).append((int(rank), number))
        for parent in parents:
            below.setdefault(parent, []).append(number)
        words.sort(key=lambda word: -int(word[2]))
        frequency = sum(int(word[2]) for word in words)
        synsets.append(Synset(number, field, parents, tuple(word[0] for word in words), frequency, gloss))
    ranked = {word: tuple(number for _, number in sorted(found)) for word, found in senses.items()}
    return WordNet(tuple(synsets), {number: tuple(found) for number, found in below.items()}, ranked)
