"""The metrics of a report: one row each. `accuracies` computes them."""

from dataclasses import dataclass


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

# The columns of a table.
HEADS = {**{key: metric.head for key, metric in METRICS.items()}, "h": "H ↑"}
