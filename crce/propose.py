"""Corefs and retains from a language model (§3.2.1).

What the model writes is untrusted text: it can only fill our form, and every phrase is cleaned before it
becomes a `Term`. Nothing here writes a file; the expert decides what is kept.
"""

import random
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from crce import chat, concepts, prompts
from crce.chat import Chat, Form
from crce.concepts import ConceptSpec, Provenance, Term
from crce.errors import CrceError

TERMS = 15  # of each kind, as in the paper
LONGEST = 120  # characters: CLIP reads 77 tokens
WISH = 2000  # characters that an expert may say in a round


def _level(value: object) -> object:
    """ "Very High", "very_high" and "very high" are one."""
    return " ".join(value.lower().replace("_", " ").split()) if isinstance(value, str) else value


class _Phrase(Form):
    text: str
    certainty: Annotated[Literal[*concepts.CERTAINTY], BeforeValidator(_level)]
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


class _Names(Form):
    names: list[str]


def proposer_status() -> tuple[bool, str]:
    """Whether a language model is configured, and what the status line says about it."""
    return chat.status()


@dataclass(frozen=True)
class ChatProposer:
    """Proposes and revises specs. Holds no conversation: the spec is all that a round starts from."""

    chat: Chat

    @classmethod
    def from_env(cls) -> "ChatProposer":
        """Raises CrceError that names the environment variables to set."""
        return cls(Chat.from_env())

    def propose(self, target: str, category: str = "object", sense: str = "", seed: int = 0) -> ConceptSpec:
        """The spec of the meaning asked for, or of the first one that the model gives."""
        return self.meanings(target, category, sense, seed)[0]

    def meanings(self, target: str, category: str = "object", sense: str = "", seed: int = 0) -> list[ConceptSpec]:
        """One spec for each meaning of an ambiguous word ("apple": the fruit, the company)."""
        bare = ConceptSpec(_clean(target), category, _clean(sense), provenance=Provenance(split_seed=seed))
        if not bare.target:
            raise CrceError("There is no concept to propose for. Write one, such as dog.")
        question = prompts.concept_message(bare.target, category, bare.sense)
        found = self.chat.ask(_Answer, question, prompts.system_prompt()).meanings
        if sense or len(found) == 1:
            return [self._filled(bare, found[0])]
        specs = [self._filled(replace(bare, sense=_clean(meaning.sense)), meaning) for meaning in found]
        return list({spec.slug: spec for spec in specs}.values())

    def revise(self, spec: ConceptSpec, wish: str) -> ConceptSpec:
        """A round of talk: the lists changed as wished. Terms that stay keep their split, source and note."""
        question = prompts.revision_message(spec, _clean(wish)[:WISH])
        answer = self.chat.ask(_Answer, question, prompts.system_prompt())
        return self._filled(spec, answer.meanings[0], rounds=spec.provenance.rounds + 1)

    def names(self, category: str) -> list[str]:
        """Concepts to start from, by the paper's own two prompts (§3.2.2): "celebrity" or "ip"."""
        if category not in prompts.LIST_PROMPTS:
            raise CrceError(f"There is no list of {category!r}. Ask for {' or '.join(prompts.LIST_PROMPTS)}.")
        question = prompts.LIST_PROMPTS[category] + ' Answer with JSON only: {"names": ["…", …]}'
        names = [_clean(name)[:LONGEST] for name in self.chat.ask(_Names, question).names]
        return list({name.casefold(): name for name in names if name}.values())

    def _filled(self, spec: ConceptSpec, meaning: _Meaning, rounds: int = 0) -> ConceptSpec:
        """The spec with the lists of an answer in place of its own."""
        corefs, retains = tidy(_terms(meaning.corefs), _terms(meaning.retains), spec)
        made = replace(
            spec.provenance,
            rounds=rounds,
            model=_clean(self.chat.model)[:LONGEST],
            prompt_version=prompts.PROMPT_VERSION,
        )
        return replace(
            spec,
            corefs=draw_split(_kept(corefs, spec.corefs), made.split_seed, spec.corefs),
            retains=draw_split(_kept(retains, spec.retains), made.split_seed, spec.retains),
            provenance=made,
        )


def tidy(corefs: list[Term], retains: list[Term], spec: ConceptSpec) -> tuple[list[Term], list[Term]]:
    """At most 15 of each; without the target, repeats, and what would be erased and kept at once."""
    erase, keep = _by_key(corefs), _by_key(retains)
    refused = {spec.target.casefold(), spec.name.casefold()} | (erase.keys() & keep.keys())
    erase, keep = ([term for key, term in found.items() if key not in refused] for found in (erase, keep))
    return erase[:TERMS], keep[:TERMS]


def _by_key(terms: list[Term]) -> dict[str, Term]:
    found: dict[str, Term] = {}
    for term in terms:
        found.setdefault(term.text.casefold(), term)
    return found


def draw_split(terms: Iterable[Term], seed: int, before: Iterable[Term] = ()) -> tuple[Term, ...]:
    """A third held out at random (§3.2.2: 5 of 15), train first. Terms from `before` keep their split."""
    terms = list(terms)
    fixed = {term.text.casefold(): term.split for term in before}
    held_out = {t.text for t in terms if fixed.get(t.text.casefold()) == "test"}
    free = [t.text for t in terms if t.text.casefold() not in fixed]
    wanted = min(max(len(terms) // 3 - len(held_out), 0), len(free))
    held_out |= set(random.Random(seed).sample(free, wanted))
    split = [replace(t, split="test" if t.text in held_out else "train") for t in terms]
    return tuple(sorted(split, key=lambda t: (t.split == "test", -t.weight)))


def _terms(phrases: list[_Phrase]) -> list[Term]:
    terms = [Term(_clean(p.text), p.certainty, source="llm", note=_clean(p.why)[:LONGEST]) for p in phrases]
    return [term for term in terms if 0 < len(term.text) <= LONGEST]


def _kept(terms: list[Term], before: tuple[Term, ...]) -> list[Term]:
    """Terms that stood before keep spelling, source and note: the model only repeated them."""
    known = {term.text.casefold(): term for term in before}
    return [replace(known.get(t.text.casefold(), t), certainty=t.certainty) for t in terms]


def _clean(text: str) -> str:
    """One line of visible characters."""
    visible = ("" if unicodedata.category(c) in ("Cf", "Co", "Cs", "Cn") else c for c in text)
    spaced = (" " if unicodedata.category(c)[0] in "CZ" else c for c in "".join(visible))
    return " ".join("".join(spaced).split())
