"""A person's verdicts on pictures, and how far a judge agrees with them. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crce.kappa import kappa

RESAMPLES = 2_000
ENOUGH_PROMPTS = 2  # from here on there is an interval: the pictures of one prompt are not independent

Answer = Literal["yes", "no", "unclear"]
Picture = tuple[str, str, int, bool]  # prompt, what is asked, seed, after the erasure


@dataclass(frozen=True)
class PersonVerdict:
    """What a person answers to "does it show `asked`?".

    text, seed: of the picture; after: whether it is drawn by the erased model. judge, judge_yes: the verdict of the
    judge whose marks Compare showed then; None if it gave none.
    """

    text: str
    asked: str
    seed: int
    after: bool
    answer: Answer
    judge: str = ""
    judge_yes: bool | None = None

    @property
    def picture(self) -> Picture:
        return self.text, self.asked, self.seed, self.after


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ of a judge and a person, over the `n` pictures on which both said yes or no.

    same: on how many they agree. kappa: None where one of them always says the same, so that chance explains all.
    low, high: 95 % bootstrap interval over the prompts; None where there are fewer than two. unclear: pictures that
    the person could not tell.
    """

    judge: str
    n: int
    same: int
    kappa: float | None
    low: float | None
    high: float | None
    unclear: int = 0

    @property
    def text(self) -> str:
        """ "κ = 0.82 (0.61 to 0.95), 38 of 42 pictures alike"."""
        alike = f"{self.same} of {self.n} pictures alike"
        if self.kappa is None:
            return f"{alike}; κ needs both answers from both"
        return f"κ = {self.kappa_text}, {alike}"

    @property
    def kappa_text(self) -> str:
        """ "0.82 (0.61 to 0.95)", or "–" without κ."""
        if self.kappa is None:
            return "–"
        return f"{self.kappa:.2f}" + ("" if self.low is None else f" ({self.low:.2f} to {self.high:.2f})")


def measure_agreement(
    verdicts: Sequence[PersonVerdict], judge: str, judged: Mapping[Picture, bool], seed: int = 0
) -> Agreement | None:
    """How far `judge` agrees with a person; None without a picture on which both said yes or no.

    judged: the judge's verdicts in a report; for other pictures, the one that Compare showed counts.
    """
    shown = {v.picture: v.judge_yes for v in verdicts if v.judge == judge and v.judge_yes is not None}
    known = {**shown, **judged}
    told = [v for v in verdicts if v.answer != "unclear" and v.picture in known]
    if not told:
        return None
    counts = _count([(v.text, v.answer == "yes", known[v.picture]) for v in told])
    total = counts.sum(axis=0)
    (found,) = kappa(total[None])
    low, high = _interval(counts, seed)
    unclear = sum(v.answer == "unclear" for v in verdicts)
    return Agreement(judge, len(told), int(np.trace(total)), None if np.isnan(found) else float(found), low, high,
                     unclear)  # fmt: skip


def _count(told: Sequence[tuple[str, bool, bool]]) -> np.ndarray:
    """For each prompt, how often the person's and the judge's yes and no meet: [prompts, 2, 2], as in `kappa`."""
    places = {prompt: number for number, prompt in enumerate(dict.fromkeys(text for text, _, _ in told))}
    counts = np.zeros((len(places), 2, 2))
    for text, person, judge in told:
        counts[places[text], int(person), int(judge)] += 1
    return counts


def _interval(counts: np.ndarray, seed: int) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile bootstrap over prompts; resamples in which κ is not defined are left out."""
    if len(counts) < ENOUGH_PROMPTS:
        return None, None
    draws = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
    found = kappa(counts[draws].sum(axis=1))
    found = found[~np.isnan(found)]
    if len(found) < RESAMPLES / 2:
        return None, None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
