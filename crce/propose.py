"""Corefs and retains from a language model (§3.2.1), or from a bundled lexicon where none is connected.

What a model writes is untrusted text: it can only fill our form, and every phrase is cleaned before it
becomes a `Term`. Nothing here writes a file; the expert decides what is kept.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from crce import chat, concepts, lexicon, prompts, rounds, talk
from crce.chat import Chat, Form, T, Writing
from crce.concepts import ConceptSpec, Provenance, Round, Term
from crce.errors import CrceError
from crce.library import LONGEST, SHIPPED
from crce.rounds import TERMS, Revision, clean

MOST = 30  # of each kind that a round may leave; the expert chooses among them
WISH = 2000  # characters that an expert may say in a round


def _level(value: object) -> object:
    """ "Very High", "very_high" and "very high" are one."""
    return " ".join(value.lower().replace("_", " ").split()) if isinstance(value, str) else value


class _Phrase(Form):
    text: str
    certainty: Annotated[Literal[*concepts.CERTAINTY], BeforeValidator(_level)]
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


def proposer(model: str = "") -> "ChatProposer | LexiconProposer":
    """What proposes here: the language model of the environment, else the lexicon.

    model: another one of the endpoint. Raises CrceError where there is no endpoint to have it.
    """
    return LexiconProposer() if not model and chat.missing_settings() else ChatProposer(Chat.from_env(model))


def proposer_status() -> tuple[bool, str]:
    """Whether a language model is configured, and what the status line says about it."""
    return chat.status()


def finished(writing: Writing[T]) -> T:
    """What a writing comes to, for those who do not watch."""
    while True:
        try:
            next(writing)
        except StopIteration as end:
            return end.value


def written(text: str) -> list[str]:
    """The terms that stand in an answer which is still being written, each once, to show them as they come."""
    quoted = re.findall(r'"text"\s*:\s*("(?:[^"\\]|\\.)*")', text)
    return list(dict.fromkeys(map(_unquoted, quoted)))


def _unquoted(quoted: str) -> str:
    try:
        return clean(json.loads(quoted))
    except ValueError:
        return clean(quoted)


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
        edits = [change.label for change in rounds.changes(since or spec, spec)]
        question = prompts.revision_message(spec, wish, edits)
        answer = yield from self.chat.ask(_Revised, question, prompts.revision_prompt())
        offer = rounds.with_lists(spec, _terms(answer.corefs), _terms(answer.retains), max(MOST, *_lengths(spec)))
        why = {clean(said.text).casefold(): _line(said.why) for said in _all_phrases(answer)}
        taken = rounds.changes(spec, offer, why)
        return Revision(rounds.apply(spec, taken, self._round(wish)), _line(answer.says, WISH), why)

    def names(self, category: str) -> Writing[list[str]]:
        """Concepts to start from, by the paper's own two prompts (§3.2.2): "celebrity" or "ip"."""
        if category not in prompts.LIST_PROMPTS:
            raise CrceError(f"There is no list of {category!r}. Ask for {' or '.join(prompts.LIST_PROMPTS)}.")
        answer = yield from self.chat.ask(_Names, prompts.names_message(category))
        names = [_line(name) for name in answer.names]
        return list({name.casefold(): name for name in names if name}.values())

    def _proposed(self, bare: ConceptSpec, meaning: _Meaning) -> ConceptSpec:
        offer = rounds.with_lists(bare, _terms(meaning.corefs), _terms(meaning.retains), TERMS)
        return proposed(bare, offer, self._round())

    def _round(self, wish: str = "") -> Round:
        return Round("llm", _line(self.chat.model), prompts.PROMPT_VERSION, wish)


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
    return rounds.apply(bare, rounds.changes(bare, offer), round)


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
        revision = talk.understood(spec, wish)
        yield revision.says
        taken = rounds.changes(spec, revision.spec)
        if not taken:
            return revision
        made = rounds.apply(spec, taken, Round("lexicon", "WordNet", wish=wish))
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


def _one_of_each(specs: list[ConceptSpec]) -> list[ConceptSpec]:
    """The first of each name: senses that are called the same cannot be told apart."""
    found: dict[str, ConceptSpec] = {}
    for spec in specs:
        found.setdefault(spec.slug, spec)
    return list(found.values())


def _lengths(spec: ConceptSpec) -> tuple[int, int]:
    return len(spec.corefs), len(spec.retains)


def _all_phrases(answer: _Revised) -> list[_Phrase | _Dropped]:
    return [*answer.dropped, *answer.corefs, *answer.retains]


def _terms(phrases: list[_Phrase]) -> list[Term]:
    return [Term(clean(p.text), p.certainty, source="llm", note=_line(p.why)) for p in phrases]


def _line(text: str, longest: int = LONGEST) -> str:
    return clean(text)[:longest].rstrip()
