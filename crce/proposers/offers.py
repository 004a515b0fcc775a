"""What both proposers share: the blank spec, the round they attach, and reading an answer that is being written."""

import json
import re

from crce.concepts import edits
from crce.concepts.edits import clean
from crce.concepts.library import LONGEST
from crce.concepts.spec import ConceptSpec, Provenance, Round
from crce.errors import CrceError

LONGEST_REQUEST = 2000  # characters of an expert's request


def parse_terms(text: str) -> list[str]:
    """The terms in an answer that is still being written, without repeats, to show them as they arrive."""
    quoted = re.findall(r'"text"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    return list(dict.fromkeys(map(_unquote, quoted)))


def _unquote(quoted: str) -> str:
    try:
        return clean(json.loads(quoted))
    except ValueError:
        return clean(quoted)


def create_blank(target: str, category: str, sense: str, seed: int) -> ConceptSpec:
    """The requested concept without terms. Raises CrceError for an empty target.

    seed: of the split.
    """
    bare = ConceptSpec(shorten(target), category, shorten(sense), provenance=Provenance(split_seed=seed))
    if not bare.target:
        raise CrceError("No concept was given. Write one, such as dog.")
    return bare


def attach_round(bare: ConceptSpec, offer: ConceptSpec, round: Round) -> ConceptSpec:
    """The offered lists with the round that made them. Raises CrceError if both are empty."""
    if not offer.corefs and not offer.retains:
        raise CrceError(f"No proposed term for {bare.name!r} is usable. Try again, or write the terms by hand.")
    return edits.apply(bare, edits.changes(bare, offer), round)


def drop_repeats(specs: list[ConceptSpec]) -> list[ConceptSpec]:
    """The first spec of each name: senses with the same label cannot be told apart."""
    found: dict[str, ConceptSpec] = {}
    for spec in specs:
        found.setdefault(spec.name.casefold(), spec)
    return list(found.values())


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cleans a text and cuts it to `longest` characters."""
    return clean(text)[:longest].rstrip()
