"""What the judge was asked, what it said, and what that is counted as."""

from dataclasses import dataclass
from pathlib import Path

from crce.files import read_json

COVERED_FROM = 5  # of 10 pictures of the base, to call a term drawn


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


@dataclass(frozen=True)
class Metric:
    """One of the five accuracies (§4.1): of the pictures of this kind and split, those in which the judge sees what
    it was asked for.

    plain: whose pictures they are, for people who have not read the paper.
    """

    name: str
    plain: str
    kind: str
    split: str

    @property
    def low(self) -> bool:
        """Whether a good erasure makes it low."""
        return self.kind != "retain"

    @property
    def head(self) -> str:
        """Over a table's column."""
        return f"{self.name} {'↓' if self.low else '↑'}"


METRICS = {
    "acc_u": Metric("Acc_U", "the concept", "target", "train"),
    "acc_c_train": Metric("Acc_C train", "its names, seen", "coref", "train"),
    "acc_c_test": Metric("Acc_C test", "its names, held out", "coref", "test"),
    "acc_r_train": Metric("Acc_R train", "neighbours, seen", "retain", "train"),
    "acc_r_test": Metric("Acc_R test", "neighbours, held out", "retain", "test"),
}


def read_coverage(file: Path) -> dict[tuple[str, str], bool]:
    """(text, asked) → whether the base draws it, from its covered.json; empty if there is none."""
    if not file.exists():
        return {}
    return {(row["text"], row["asked"]): row["yes"] >= COVERED_FROM for row in read_json(file)["terms"]}
