"""Chooses the proposer: a language model (§3.2.1), or the bundled lexicon if none is connected.

Proposers write no files: the expert decides what to keep.
"""

from crce.concepts.spec import ConceptSpec
from crce.generators import drain
from crce.proposers import chat
from crce.proposers.chat import Chat
from crce.proposers.llm import ChatProposer
from crce.proposers.offline import LexiconProposer


def proposer(model: str = "") -> "ChatProposer | LexiconProposer":
    """The language model configured in the environment, else the lexicon.

    model: overrides CRCE_MODEL. Raises CrceError if a model is named and there is no endpoint.
    """
    return LexiconProposer() if not model and chat.missing_settings() else ChatProposer(Chat.from_env(model))


def proposer_status() -> tuple[bool, str]:
    """Whether a language model is configured, and the text for the status line."""
    return chat.status()


def propose(
    concept: str, category: str = "object", sense: str = "", *, model: str = "", seed: int = 0
) -> list[ConceptSpec]:
    """Propose corefs and retains: one spec for each meaning of an ambiguous word, or for the `sense` asked for.

    category: "object", "ip", "celebrity" or "style". model: another one of the endpoint. seed: splits the terms into
    training and held out. Raises CrceError if the proposer cannot answer, or does not know the concept.
    """
    return drain(proposer(model).meanings(concept, category, sense, seed))
