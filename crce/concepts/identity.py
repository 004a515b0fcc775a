"""A concept's file name: readable, and never that of another concept.

Two concepts are the same if their names and senses are, letter by letter. A name of lower-case ASCII words is its own
file name; where anything has to be dropped to make one (a capital, an accent, a bracket, another script), a short hash
of name and sense tells it from all others. The shipped concepts keep the file names under which they were published.
"""

import hashlib
import json
import re
import unicodedata
from functools import lru_cache

_LONGEST = 80  # letters of the readable part: file systems take 255 bytes
_HASH = 8  # hexadecimal digits
_SHIPPED_NAMES = """
Batman; Beyoncé; Darth Vader; Donald Trump; Gandalf; Harry Potter; Homer Simpson; Jackie Chan; Jennifer Lopez;
Katniss Everdeen; Lara Croft; Lionel Messi; Meryl Streep; Michelle Yeoh; Mickey Mouse; Mindy Kaling; Morgan Freeman;
Pikachu; Queen Elsa; Samuel L. Jackson; Santa Claus; Serena Williams; Shah Rukh Khan; Sherlock Holmes; Sonic the
Hedgehog; SpongeBob SquarePants; Super Mario; Taylor Swift; The Joker; Tom Cruise; Zendaya"""
_SHIPPED_SENSES = {
    ("apple", "company"), ("apple", "fruit"), ("bat", "animal"), ("bat", "sports equipment"), ("crane", "bird"),
    ("crane", "machine"), ("cricket", "insect"), ("jaguar", "animal"), ("jaguar", "car"), ("mouse", "animal"),
    ("mouse", "computer"),
}  # fmt: skip


@lru_cache(maxsize=4096)
def to_file_name(target: str, sense: str) -> str:
    """The file name: "dog", "bat-animal" for the shipped concept, "jaguar-guitar-5f0d03ab" for the sense "guitar"."""
    name = f"{target} ({sense})" if sense else target
    readable = simplify(name)
    owner = _OWNERS.get(readable)
    exact = owner == (target, sense) if owner else readable.replace("-", " ") == name and not sense
    if exact and len(readable) <= _LONGEST and not _TAIL.search(readable):
        return readable
    digest = hashlib.sha256(json.dumps([target, sense]).encode()).hexdigest()[:_HASH]
    return f"{readable[:_LONGEST].strip('-') or 'concept'}-{digest}"


def simplify(name: str) -> str:
    """The name's ASCII letters and digits in lower case, words joined by hyphens; different names may give the same."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")


def fold(name: str) -> str:
    """The name without case and without accents on Latin letters: what a person may type for it."""
    letters = unicodedata.normalize("NFKD", name.strip().casefold())
    return unicodedata.normalize("NFC", re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", letters))


_TAIL = re.compile(rf"-[0-9a-f]{{{_HASH}}}$")  # of a name that looks as if it had a hash
_OWNERS = {
    simplify(f"{target} {sense}"): (target, sense)
    for target, sense in (*((" ".join(name.split()), "") for name in _SHIPPED_NAMES.split(";")), *_SHIPPED_SENSES)
}
