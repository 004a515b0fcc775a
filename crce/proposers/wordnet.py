"""The nouns of physical things of WordNet, from the file that assets/build/lexicon.py makes.

A reader of our own: nltk's wants a dozen uncompressed files of 30 MB, verbs and adjectives among them, for what are
three questions here: which senses a word has, what a sense is a kind of, and which kinds there are of it.
"""

import lzma
import re
from dataclasses import dataclass
from functools import cache

from crce.files import DATA

FILE = DATA / "assets" / "lexicon" / "wordnet.tsv.xz"
_SINGULAR = ((r"ies$", "y"), (r"ves$", "f"), (r"es$", ""), (r"s$", ""))


@dataclass(frozen=True)
class Synset:
    """One sense. words: the commonest first; met: how often WordNet's readers met it under one of them."""

    number: int
    field: str
    above: tuple[int, ...]
    words: tuple[str, ...]
    frequency: int
    gloss: str


@dataclass(frozen=True)
class WordNet:
    """Synsets by number. below: the kinds of each; senses: word in lower case → its senses, commonest first."""

    synsets: tuple[Synset, ...]
    below: dict[int, tuple[int, ...]]
    senses: dict[str, tuple[int, ...]]

    def find(self, word: str) -> list[Synset]:
        """The senses of a word, commonest first; a plural is tried in the singular. Empty where it is not known."""
        word = " ".join(word.casefold().split())
        forms = [word, *(re.sub(end, other, word) for end, other in _SINGULAR if re.search(end, word))]
        numbers = next((self.senses[form] for form in forms if form in self.senses), ())
        return [self.synsets[number] for number in numbers]

    def hyponyms(self, synset: Synset, depth: int) -> dict[Synset, int]:
        """What is a kind of it, with how many steps down that is, itself at 0."""
        return self._walked(synset, depth, lambda number: self.below.get(number, ()))

    def hypernyms(self, synset: Synset, depth: int) -> dict[Synset, int]:
        """What it is a kind of, with how many steps up that is, itself at 0."""
        return self._walked(synset, depth, lambda number: self.synsets[number].above)

    def _walked(self, synset: Synset, depth: int, links) -> dict[Synset, int]:
        found, front = {synset.number: 0}, [synset.number]
        for steps in range(1, depth + 1):
            front = [n for number in front for n in links(number) if n not in found]
            found.update(dict.fromkeys(front, steps))
        return {self.synsets[number]: steps for number, steps in found.items()}


@cache
def wordnet() -> WordNet:
    """Read once: a third of a second."""
    rows = lzma.decompress(FILE.read_bytes()).decode().splitlines()
    synsets, senses, below = [], {}, {}
    for number, row in enumerate(rows):
        field, above, words, gloss = row.split("\t")
        words = [word.split("|") for word in words.split(",")]
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
