"""What the judge is asked, and what it answers."""

from dataclasses import dataclass

from crce.concepts.spec import ConceptSpec

# What is asked of a coref's picture: whether it shows the target, or the coref.
ASKS = ("target", "coref")
# The target gets five times the pictures of a term: it is one prompt, the others are ten and five.
TARGET_FACTOR = 5
COVERED_FROM = 5  # of 10 pictures of the base, to call a term drawn
# The kind of a question about pictures of something else: a judge that says yes to them is no good.
DISTRACTOR = "distractor"


@dataclass(frozen=True)
class Question:
    """Draw `text` with these seeds and ask the judge of each picture whether it shows `asked`.

    kind: "target", "coref", "retain" or "distractor". split: "train" or "test".
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
    strict, base_strict: whether the judge's first guess is `asked` or of its family. guesses, top: the first guess and
    its probability, after the erasure; base_top: that of the base's picture. All are empty where they were not asked
    for, and guesses and top where the judge makes no guess.
    moved: mean absolute difference of the pictures before and after, at 64×64 pixels in 0 … 1; measured of retains.
    distance: Euclidean, to the target in the base's text encoder (`text_space`).
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
    strict: tuple[bool, ...] = ()
    base_strict: tuple[bool, ...] = ()
    guesses: tuple[str, ...] = ()
    top: tuple[float, ...] = ()
    base_top: tuple[float, ...] = ()
    moved: float | None = None
    distance: float | None = None


def list_terms(spec: ConceptSpec, images: int) -> list[Answers]:
    """The target, every coref and every retain with seeds 0, 1, …, before a judge was asked: for the eye alone."""
    terms = [("target", spec.target, "train"), *(("coref", t.text, t.split) for t in spec.corefs)]
    terms += [("retain", t.text, t.split) for t in spec.retains]
    seeds = tuple(range(images))
    return [Answers(kind, text, split, spec.name, None, seeds, (), (), ()) for kind, text, split in terms]


@dataclass(frozen=True)
class Calibration:
    """On `yes` of `of` of the base's own pictures of `text` the judge sees `asked`. kind: as of a question."""

    kind: str
    text: str
    asked: str
    yes: int
    of: int

    @property
    def warning(self) -> str:
        """Why the judge or the term is no good for measuring an erasure; else an empty text."""
        if self.kind == DISTRACTOR:
            return f"the judge sees {self.asked!r} in pictures of something else" if 2 * self.yes >= self.of else ""
        if self.yes:
            return ""
        return "never drawn by the base, as the judge sees it: that it is gone would prove nothing"
