import json
import re

from crce.concepts import edits
from crce.concepts.edits import clean
from crce.concepts.library import LONGEST
from crce.concepts.spec import ConceptSpec, Provenance, Round
from crce.errors import CrceError
from crce.generators import drain
from crce.proposers.chat import T, Writing

WISH = 2000  # characters that an expert may say in a round


def finished(writing: Writing[T]) -> T:
    """What a writing comes to, for those who do not watch."""
    return drain(writing)


def written(text: str) -> list[str]:
    """The terms that stand in an answer which is still being written, each once, to show them as they come."""
    quoted = re.findall(r'"text"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    return list(dict.fromkeys(map(_unquoted, quoted)))


def _unquoted(quoted: str) -> str:
    try:
        return clean(json.loads(quoted))
    except ValueError:
        return clean(quoted)


def blank(target: str, category: str, sense: str, seed: int) -> ConceptSpec:
    """The concept as it was asked for, without terms."""
    bare = ConceptSpec(_line(target), category, _line(sense), provenance=Provenance(split_seed=seed))
    if not bare.target:
        raise CrceError("There is no concept to propose for. Write one, such as dog.")
    return bare


def proposed(bare: ConceptSpec, offer: ConceptSpec, round: Round) -> ConceptSpec:
    """An offer's lists, with the round that tells of them."""
    if not offer.corefs and not offer.retains:
        raise CrceError(f"No term that was proposed for {bare.name!r} can be used. Try again, or write them by hand.")
    return edits.apply(bare, edits.changes(bare, offer), round)


def _one_of_each(specs: list[ConceptSpec]) -> list[ConceptSpec]:
    """The first of each name: senses that are called the same cannot be told apart."""
    found: dict[str, ConceptSpec] = {}
    for spec in specs:
        found.setdefault(spec.slug, spec)
    return list(found.values())


def _line(text: str, longest: int = LONGEST) -> str:
    return clean(text)[:longest].rstrip()
