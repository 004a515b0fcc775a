"""What the judge is asked, what it answers, and which accuracy that counts towards."""

from dataclasses import dataclass
from pathlib import Path

from crce.files import read_json

# What is asked of a coref's picture: whether it shows the target, or the coref.
ASKS = ("target", "coref")
COVERED_FROM = 5  # of 10 pictures of the base, to call a term drawn


@dataclass(frozen=True)
class Question:
    """Draw `text` with these seeds and ask the judge of each picture whether it shows `asked`.

    kind: "target", "coref" or "retain". split: "train" or "test".
    """

    kind: str
    text: str
    split: str
    asked: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Answers:
    """The judge's answers to one question, in the order of the seeds.

    yes, p: whether the picture after the erasure shows `asked`, and how sure the judge is; base_yes: the same of the
    base's picture. covered: whether the base draws the term at all; None where that was not measured.
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
    """One of the five accuracies (§4.1): the share of the pictures of this kind and split in which the judge sees what
    it was asked for.

    plain: what the pictures are of, for people who have not read the paper.
    """

    name: str
    plain: str
    kind: str
    split: str

    @property
    def low(self) -> bool:
        """Whether lower is better."""
        return self.kind != "retain"

    @property
    def head(self) -> str:
        """The heading of its column."""
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
