from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from crce.concepts import edits
from crce.concepts.edits import TERMS, Revision, clean
from crce.concepts.spec import CERTAINTY, ConceptSpec, Round, Term
from crce.errors import CrceError
from crce.proposers import prompts
from crce.proposers.chat import Chat, Form, Writing
from crce.proposers.offers import WISH, _line, _one_of_each, blank, proposed

MOST = 30  # of each kind that a round may leave; the expert chooses among them


def _level(value: object) -> object:
    """ "Very High", "very_high" and "very high" are one."""
    return " ".join(value.lower().replace("_", " ").split()) if isinstance(value, str) else value


class _Phrase(Form):
    text: str
    certainty: Annotated[Literal[*CERTAINTY], BeforeValidator(_level)]
    why: str


class _Dropped(Form):
    text: str
    why: str


def _some(phrases: list) -> list:
    if not phrases:
        raise ValueError("give at least one")
    return phrases


_Phrases = Annotated[list[_Phrase], AfterValidator(_some)]


class _Meaning(Form):
    sense: str
    corefs: _Phrases
    retains: _Phrases


class _Answer(Form):
    meanings: Annotated[list[_Meaning], AfterValidator(_some)]


class _Revised(Form):
    says: str
    corefs: _Phrases
    retains: _Phrases
    dropped: list[_Dropped]


class _Names(Form):
    names: list[str]


@dataclass(frozen=True)
class ChatProposer:
    """Proposes and revises specs. Holds no conversation: the spec is all that a round starts from."""

    chat: Chat

    @property
    def label(self) -> str:
        return self.chat.label

    def meanings(
        self, target: str, category: str = "object", sense: str = "", seed: int = 0
    ) -> Writing[list[ConceptSpec]]:
        """One spec for each meaning of an ambiguous word ("apple": the fruit, the company).

        Raises CrceError for an empty target, and for whatever keeps the model from answering.
        """
        bare = blank(target, category, sense, seed)
        question = prompts.concept_message(bare.target, category, bare.sense)
        found = (yield from self.chat.ask(_Answer, question, prompts.system_prompt())).meanings
        if sense or len(found) == 1:
            return [self._proposed(bare, found[0])]
        return _one_of_each([self._proposed(replace(bare, sense=_line(m.sense)), m) for m in found])

    def revise(self, spec: ConceptSpec, wish: str, since: ConceptSpec | None = None) -> Writing[Revision]:
        """A round of talk: the lists changed as wished. The last round of the result's history tells of it.

        since: the spec after the last round; what the expert changed by hand since then is told.
        """
        wish = clean(wish)[:WISH]
        by_hand = [change.label for change in edits.changes(since or spec, spec)]
        question = prompts.revision_message(spec, wish, by_hand)
        answer = yield from self.chat.ask(_Revised, question, prompts.revision_prompt())
        offer = edits.with_lists(spec, _terms(answer.corefs), _terms(answer.retains), max(MOST, *_lengths(spec)))
        why = {clean(said.text).casefold(): _line(said.why) for said in _all_phrases(answer)}
        taken = edits.changes(spec, offer, why)
        return Revision(edits.apply(spec, taken, self._round(wish)), _line(answer.says, WISH), why)

    def names(self, category: str) -> Writing[list[str]]:
        """Concepts to start from, by the paper's own two prompts (§3.2.2): "celebrity" or "ip"."""
        if category not in prompts.LIST_PROMPTS:
            raise CrceError(f"There is no list of {category!r}. Ask for {' or '.join(prompts.LIST_PROMPTS)}.")
        answer = yield from self.chat.ask(_Names, prompts.names_message(category))
        names = [_line(name) for name in answer.names]
        return list({name.casefold(): name for name in names if name}.values())

    def _proposed(self, bare: ConceptSpec, meaning: _Meaning) -> ConceptSpec:
        offer = edits.with_lists(bare, _terms(meaning.corefs), _terms(meaning.retains), TERMS)
        return proposed(bare, offer, self._round())

    def _round(self, wish: str = "") -> Round:
        return Round("llm", _line(self.chat.model), prompts.PROMPT_VERSION, wish)


def _lengths(spec: ConceptSpec) -> tuple[int, int]:
    return len(spec.corefs), len(spec.retains)


def _all_phrases(answer: _Revised) -> list[_Phrase | _Dropped]:
    return [*answer.dropped, *answer.corefs, *answer.retains]


def _terms(phrases: list[_Phrase]) -> list[Term]:
    return [Term(clean(p.text), p.certainty, source="llm", note=_line(p.why)) for p in phrases]
