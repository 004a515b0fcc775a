"""The proposer that needs no network: it asks the bundled lexicon."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from crce.concepts import edits
from crce.concepts.edits import TERMS, Revision, clean
from crce.concepts.library import SHIPPED
from crce.concepts.spec import ConceptSpec, Provenance, Round
from crce.errors import CrceError
from crce.proposers import commands, lexicon
from crce.proposers.chat import Writing
from crce.proposers.offers import LONGEST_REQUEST, attach_round, create_blank, drop_repeats


@dataclass(frozen=True)
class LexiconProposer:
    """Proposes the bundled concepts, and WordNet's nouns for physical things otherwise."""

    label: str = "bundled lexicon (no LLM connected)"
    wishes: ClassVar[Sequence[str]] = commands.WISHES

    def meanings(
        self, target: str, category: str = "object", sense: str = "", seed: int = 0
    ) -> Writing[list[ConceptSpec]]:
        """One spec for each meaning, most common first. Raises CrceError for concepts that the lexicon lacks."""
        bare = create_blank(target, category, sense, seed)
        specs = [_copy_shipped(spec) for spec in lexicon.find_shipped(bare.target, bare.sense)] or _look_up(bare)
        for spec in specs:
            yield from _stream(spec)
        return specs

    def revise(self, spec: ConceptSpec, request: str, since: ConceptSpec | None = None) -> Writing[Revision]:
        """A round with one of the requests that `commands` understands; others change nothing.

        since: ignored; a language model needs it.
        """
        request = clean(request)[:LONGEST_REQUEST]
        revision = commands.follow(spec, request)
        yield revision.says
        taken = edits.changes(spec, revision.spec)
        if not taken:
            return revision
        made = edits.apply(spec, taken, Round("lexicon", "WordNet", wish=request))
        return replace(revision, spec=replace(made, sense=revision.spec.sense))

    def names(self, category: str) -> Writing[list[str]]:
        """The names of CorefConcept's concepts in a category."""
        names = [spec.name for spec in lexicon.load_concepts(SHIPPED) if spec.category == category]
        yield "\n".join(names)
        return names


def _look_up(bare: ConceptSpec) -> list[ConceptSpec]:
    """Specs for WordNet's senses, or for the best match of a requested sense."""
    if bare.category != "object":
        raise CrceError(
            f"{bare.name!r} is not in CorefConcept, and the lexicon has only objects, no {bare.category}. "
            f"{lexicon.CONNECT}"
        )
    found = lexicon.match_sense(bare.target, bare.sense)[:1] if bare.sense else lexicon.find_meanings(bare.target)
    if not found:
        raise CrceError(f"The lexicon does not know {bare.target!r}. Check the spelling. {lexicon.CONNECT}")
    blanks = [(replace(bare, sense=bare.sense or meaning.sense), meaning) for meaning in found]
    made = Round("lexicon", "WordNet")
    return drop_repeats([attach_round(empty, lexicon.fill(empty, meaning, TERMS), made) for empty, meaning in blanks])


def _copy_shipped(spec: ConceptSpec) -> ConceptSpec:
    """A bundled concept as a proposal: its terms with a new history."""
    bare = replace(spec, corefs=(), retains=(), provenance=Provenance(split_seed=spec.provenance.split_seed))
    return attach_round(bare, spec, Round("lexicon", "bundled concepts"))


def _stream(spec: ConceptSpec) -> Iterator[str]:
    """The terms in the format of a language model's answer, for `parse_terms`."""
    yield json.dumps({"sense": spec.sense})
    for term in (*spec.corefs, *spec.retains):
        yield json.dumps({"text": term.text, "certainty": term.certainty}, ensure_ascii=False)
