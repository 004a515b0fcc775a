"""Corefs and retains from a language model (§3.2.1), or from a bundled lexicon where none is connected.

What a model writes is untrusted text: it can only fill our form, and every phrase is cleaned before it
becomes a `Term`. Nothing here writes a file; the expert decides what is kept.
"""

from crce.concepts.spec import ConceptSpec
from crce.generators import drain
from crce.proposers import chat
from crce.proposers.chat import Chat
from crce.proposers.llm import ChatProposer
from crce.proposers.offline import LexiconProposer


def proposer(model: str = "") -> "ChatProposer | LexiconProposer":
    """What proposes here: the language model of the environment, else the lexicon.

    model: another one of the endpoint. Raises CrceError where there is no endpoint to have it.
    """
    return LexiconProposer() if not model and chat.missing_settings() else ChatProposer(Chat.from_env(model))


def proposer_status() -> tuple[bool, str]:
    """Whether a language model is configured, and what the status line says about it."""
    return chat.status()


def propose(
    concept: str, category: str = "object", sense: str = "", *, model: str = "", seed: int = 0
) -> list[ConceptSpec]:
    """Propose corefs and retains: one spec for each meaning of an ambiguous word, or for the `sense` asked for.

    category: "object", "ip", "celebrity" or "style". model: another one of the endpoint. seed: splits the terms into
    training and held out. Raises CrceError if the proposer cannot answer, or does not know the concept.
    """
    return drain(proposer(model).meanings(concept, category, sense, seed))
