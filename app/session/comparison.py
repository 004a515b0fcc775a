"""What Compare has drawn: prompts in rows, the base and its runs in columns, the same seeds in each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crce.worker.answers import Cell


@dataclass(frozen=True)
class Prompt:
    """A prompt, the list it comes from, and the concept that the judge is asked about.

    kind: "target", "coref" or "retain"; "typed" for the user's own. drawn: whether the base is known to draw it; None
    where that was not measured.
    """

    kind: str
    text: str
    ask: str | None
    drawn: bool | None = None


@dataclass(frozen=True)
class Row:
    """A prompt with its pictures: columns[column][place], a place for each seed."""

    prompt: Prompt
    columns: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Title:
    """Over a column: a name, and what it is. run: the id of the run whose own pictures these are, at full strength."""

    name: str
    about: str
    run: str = ""


@dataclass(frozen=True)
class Comparison:
    """What is drawn so far. prompts: the number of rows when it is complete. judge: the name of the judge whose
    verdicts the pictures have; empty for none. base: its name. runs: the ids of the compared runs, drawn at
    `strength`. problems: why further prompts could not be drawn."""

    concept: str
    titles: list[Title]
    seeds: list[int]
    prompts: int
    rows: tuple[Row, ...] = ()
    judge: str = ""
    base: str = ""
    runs: tuple[str, ...] = ()
    strength: float = 1.0
    problems: tuple[str, ...] = ()

    def without_one(self, problem: str) -> "Comparison":
        """With a row less to be drawn, and why."""
        return replace(self, prompts=self.prompts - 1, problems=(*self.problems, problem))

    @property
    def complete(self) -> bool:
        return len(self.rows) == self.prompts
