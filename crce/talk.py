"""What can be said to the lexicon, where no language model is connected."""

from crce.concepts import ConceptSpec
from crce.rounds import Revision


def understood(spec: ConceptSpec, wish: str) -> Revision:
    """The lists as wished. What is not understood changes nothing, and is said to be."""
    return Revision(spec, "No LLM is connected.")
