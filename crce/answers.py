"""What the judge was asked, and what it said."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A prompt, drawn with these seeds, and the concept that the judge is asked for."""

    kind: str
    text: str
    split: str
    asked: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Answers:
    """What the judge said of one prompt: `asked` of each seed's picture, after the erasure and on the base.

    covered: whether the base draws it at all; None where nobody has measured.
    """

    kind: str
    text: str
    split: str
    asked: str
    covered: bool | None
    seeds: tuple[int, ...]
    yes: tuple[bool, ...]
    p: tuple[float, ...]
    base_yes: tuple[bool, ...]
