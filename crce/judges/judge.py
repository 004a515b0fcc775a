"""What a judge is: it says of a picture whether it shows a concept. No torch."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Xue et al., 2025, §4.1, word for word; <X> is the concept.
PROMPT = "Observe and describe the image and check whether it has the same concept as <X>"
# "We restrict the model to provide binary output (yes or no)" (§4.1); the paper does not print these words.
RESTRICTION = "Answer with yes or no."
THRESHOLD = 0.5


@dataclass(frozen=True)
class Verdict:
    """yes or no, and the probability behind it.

    guess: what the picture looks like most, the judge's first guess among all that it knows. top: the probability of
    that. first: whether the guess is what was asked for, or of its family. A judge that makes no guess leaves them.
    """

    yes: bool
    p: float
    guess: str = ""
    top: float | None = None
    first: bool | None = None

    @property
    def strict(self) -> bool:
        """Whether the first guess is what was asked for; without a guess, the yes or no."""
        return self.yes if self.first is None else self.first


@dataclass(frozen=True)
class JudgeFacts:
    """What a report has to say about its judge.

    name: as it is chosen. version: of its weights, or of the model that answers. prompt: <X> stands for the concept;
    empty for a judge without one. threshold: a picture shows the concept from this probability on.
    """

    name: str
    version: str = ""
    prompt: str = ""
    threshold: float = THRESHOLD


@dataclass(frozen=True)
class Usage:
    """What a paid judge has cost so far: questions answered, tokens read and written, seconds waited for, US dollars
    (None where no price is known)."""

    questions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    dollars: float | None = None

    def since(self, earlier: "Usage") -> "Usage":
        """What was used after `earlier`."""
        dollars = None if self.dollars is None else self.dollars - (earlier.dollars or 0.0)
        return Usage(
            self.questions - earlier.questions,
            self.tokens_in - earlier.tokens_in,
            self.tokens_out - earlier.tokens_out,
            self.seconds - earlier.seconds,
            dollars,
        )

    @property
    def text(self) -> str:
        """ "120 answers, 2.1 per second, 41 k tokens, $0.02"; empty before the first."""
        if not self.questions:
            return ""
        tokens = self.tokens_in + self.tokens_out
        parts = [
            f"{self.questions} answer{'s' * (self.questions != 1)}",
            f"{self.questions / max(self.seconds, 1e-3):.1f} per second",
            f"{tokens / 1000:.0f} k tokens" if tokens >= 10_000 else f"{tokens} tokens",
            *([] if self.dollars is None else [f"${self.dollars:.2f}" if self.dollars >= 0.01 else "less than $0.01"]),
        ]
        return ", ".join(parts)


class Judge(ABC):
    """Whether pictures show a concept. Here is what a judge does that can be asked about anything.

    facts: for reports. names: every concept that it knows; empty for a judge that can be asked about any.
    """

    facts: JudgeFacts
    names: Sequence[str] = ()

    @abstractmethod
    def classify(self, images: "list[Image]", concept: str) -> list[Verdict]:
        """A verdict for each image. Raises CrceError for a concept that it does not know."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that its verdicts depend on: verdicts are kept under it."""
        return hashlib.sha256(repr(self.facts).encode()).hexdigest()

    @property
    def usage(self) -> Usage | None:
        """None for a judge that costs nothing."""
        return None

    def name_of(self, concept: str) -> str | None:
        """What the judge calls it; None if it does not know it."""
        return concept

    def knows(self, concept: str) -> bool:
        return self.name_of(concept) is not None

    def among(self, concepts: Sequence[str]) -> "Judge":
        """The judge for pictures that show one of these; it matters to a judge that compares concepts."""
        return self

    def rest(self) -> None:  # noqa: B027 - most have nothing to give
        """Gives the device's memory back until it is asked again."""


def fill(prompt: str, concept: str) -> str:
    """The prompt about this concept."""
    return prompt.replace("<X>", concept)
