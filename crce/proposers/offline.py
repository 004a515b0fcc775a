import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from crce.concepts import edits
from crce.concepts.edits import TERMS, Revision, clean
from crce.concepts.library import SHIPPED
from crce.concepts.spec import ConceptSpec, Provenance, Round
from crce.errors import CrceError
from crce.proposers import commands, lexicon
from crce.proposers.chat import Writing
from crce.proposers.offers import WISH, _one_of_each, blank, proposed


@dataclass(frozen=True)
class LexiconProposer:
    """Proposes without a network: the bundled concepts, else WordNet's nouns of physical things."""

    label: str = "bundled lexicon (no LLM connected)"

    def meanings(
        self, target: str, category: str = "object", sense: str = "", seed: int = 0
    ) -> Writing[list[ConceptSpec]]:
        """One spec for each meaning, commonest first. Raises CrceError for what the lexicon does not know."""
        bare = blank(target, category, sense, seed)
        specs = [_taken_over(spec) for spec in lexicon.known(bare.target, bare.sense)] or _looked_up(bare)
        for spec in specs:
            yield from _shown(spec)
        return specs

    def revise(self, spec: ConceptSpec, wish: str, since: ConceptSpec | None = None) -> Writing[Revision]:
        """A round of talk in the handful of requests that `talk` understands; others change nothing.

        since: as for a model; here the lists as they stand are all that matters.
        """
        wish = clean(wish)[:WISH]
        revision = commands.understood(spec, wish)
        yield revision.says
        taken = edits.changes(spec, revision.spec)
        if not taken:
            return revision
        made = edits.apply(spec, taken, Round("lexicon", "WordNet", wish=wish))
        return replace(revision, spec=replace(made, sense=revision.spec.sense))

    def names(self, category: str) -> Writing[list[str]]:
        """The concepts of CorefConcept of a category."""
        names = [spec.name for spec in lexicon.concepts(SHIPPED) if spec.category == category]
        yield "\n".join(names)
        return names


def _looked_up(bare: ConceptSpec) -> list[ConceptSpec]:
    """WordNet's senses; of one sense that was asked for, the best."""
    if bare.category != "object":
        raise CrceError(
            f"{bare.name!r} is not in CorefConcept, and the lexicon knows objects only, no {bare.category}. "
            f"{lexicon.CONNECT}"
        )
    found = lexicon.meant(bare.target, bare.sense)[:1] if bare.sense else lexicon.meanings(bare.target)
    if not found:
        raise CrceError(f"The lexicon does not know {bare.target!r}. Check the spelling. {lexicon.CONNECT}")
    blanks = [(replace(bare, sense=bare.sense or meaning.sense), meaning) for meaning in found]
    made = Round("lexicon", "WordNet")
    return _one_of_each([proposed(empty, lexicon.filled(empty, meaning, TERMS), made) for empty, meaning in blanks])


def _taken_over(spec: ConceptSpec) -> ConceptSpec:
    """A bundled concept as a proposal: its terms, and a history of its own."""
    bare = replace(spec, corefs=(), retains=(), provenance=Provenance(split_seed=spec.provenance.split_seed))
    return proposed(bare, spec, Round("lexicon", "bundled concepts"))


def _shown(spec: ConceptSpec) -> Iterator[str]:
    """The terms, written as a model writes them (`written`)."""
    yield json.dumps({"sense": spec.sense})
    for term in (*spec.corefs, *spec.retains):
        yield json.dumps({"text": term.text, "certainty": term.certainty}, ensure_ascii=False)
