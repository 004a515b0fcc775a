"""The proposer that asks a language model (§3.2.1).

Its output is untrusted: it can only fill our schema, and every phrase is cleaned before it becomes a `Term`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator

from crce.concepts import edits
from crce.concepts.edits import TERMS, Revision, clean
from crce.concepts.spec import Certainty, ConceptSpec, Round, Term
from crce.errors import CrceError
from crce.proposers import prompts
from crce.proposers.chat import Chat, Form, Writing
from crce.proposers.offers import LONGEST_REQUEST, attach_round, create_blank, drop_repeats, shorten

MOST = 30  # terms in each list after a round; the expert chooses among them


def _normalise_level(value: object) -> object:
    """Turns "Very High" and "very_high" into "very high"."""
    return " ".join(value.lower().replace("_", " ").split()) if isinstance(value, str) else value


class _Phrase(Form):
    text: str
    certainty: Annotated[Certainty, BeforeValidator(_normalise_level)]
    why: str


class _Dropped(Form):
    text: str
    why: str


def _check_not_empty(phrases: list) -> list:
    if not phrases:
        raise ValueError("give at least one")
    return phrases


_Phrases = Annotated[list[_Phrase], AfterValidator(_check_not_empty)]


class _Meaning(Form):
    sense: str
    corefs: _Phrases
    retains: _Phrases


class _Answer(Form):
    meanings: Annotated[list[_Meaning], AfterValidator(_check_not_empty)]


class _Revised(Form):
    says: str
    corefs: _Phrases
    retains: _Phrases
    dropped: list[_Dropped]


class _Names(Form):
    names: list[str]


# To choose from, where nobody types.
WISHES = (
    "more everyday names",
    "fewer names that differ by a word",
    "neighbours that look more alike",
    "another sense",
)


@dataclass(frozen=True)
class ChatProposer:
    """Proposes and revises specs. Stateless: each round starts from the spec alone."""

    chat: Chat
    wishes: ClassVar[Sequence[str]] = WISHES

    @property
    def label(self) -> str:
        return self.chat.label

    def meanings(
        self, target: str, category: str = "object", sense: str = "", seed: int = 0
    ) -> Writing[list[ConceptSpec]]:
        """One spec for each meaning of an ambiguous word ("apple": the fruit, the company).

        seed: of the split. Raises CrceError if the target is empty or the model does not answer.
        """
        bare = create_blank(target, category, sense, seed)
        question = prompts.concept_message(bare.target, category, bare.sense)
        found = (yield from self.chat.ask(_Answer, question, prompts.system_prompt())).meanings
        if sense or len(found) == 1:
            return [self._propose(bare, found[0])]
        return drop_repeats([self._propose(replace(bare, sense=shorten(m.sense)), m) for m in found])

    def revise(self, spec: ConceptSpec, request: str, since: ConceptSpec | None = None) -> Writing[Revision]:
        """A round: revises the lists as requested and records it in the history.

        since: the spec after the last round; the model is told what the expert has edited since then.
        """
        request = clean(request)[:LONGEST_REQUEST]
        by_hand = [change.label for change in edits.changes(since or spec, spec)]
        question = prompts.revision_message(spec, request, by_hand)
        answer = yield from self.chat.ask(_Revised, question, prompts.revision_prompt())
        offer = edits.with_lists(
            spec, _to_terms(answer.corefs), _to_terms(answer.retains), max(MOST, len(spec.corefs), len(spec.retains))
        )
        reasons: list[_Phrase | _Dropped] = [*answer.dropped, *answer.corefs, *answer.retains]
        why = {clean(each.text).casefold(): shorten(each.why) for each in reasons}
        taken = edits.changes(spec, offer, why)
        return Revision(edits.apply(spec, taken, self._make_round(request)), shorten(answer.says, LONGEST_REQUEST), why)

    def names(self, category: str) -> Writing[list[str]]:
        """Concepts to start with, from the paper's two prompts (§3.2.2). Raises CrceError for other categories."""
        if category not in prompts.LIST_PROMPTS:
            raise CrceError(f"There is no list for {category!r}. Ask for {' or '.join(prompts.LIST_PROMPTS)}.")
        answer = yield from self.chat.ask(_Names, prompts.names_message(category))
        names = [shorten(name) for name in answer.names]
        return list({name.casefold(): name for name in names if name}.values())

    def _propose(self, bare: ConceptSpec, meaning: _Meaning) -> ConceptSpec:
        offer = edits.with_lists(bare, _to_terms(meaning.corefs), _to_terms(meaning.retains), TERMS)
        return attach_round(bare, offer, self._make_round())

    def _make_round(self, request: str = "") -> Round:
        return Round("llm", shorten(self.chat.model), prompts.PROMPT_VERSION, request)


def _to_terms(phrases: list[_Phrase]) -> list[Term]:
    return [Term(clean(p.text), p.certainty, source="llm", note=shorten(p.why)) for p in phrases]
