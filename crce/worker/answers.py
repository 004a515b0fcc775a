"""What the worker answers, one class for each request. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorAnswer:
    """The request could not be answered: why, and what to do."""

    error: str


@dataclass(frozen=True)
class ReplacedAnswer:
    """The tab has sent a newer request of the same kind."""

    replaced: bool = True


@dataclass(frozen=True)
class StatusAnswer:
    """What a worker is doing. device: "starting" until torch is loaded; base: the model that is loaded; run: the id of
    the run it works on; waiting: requests in the queue."""

    device: str
    base: str | None = None
    run: str | None = None
    pid: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Cell:
    """One picture. png: base64. yes, p: whether the judge sees the concept, and how sure it is; None where it was not
    asked or does not know the concept. guess: its first guess; empty where it was not asked or makes none."""

    png: str
    yes: bool | None = None
    p: float | None = None
    guess: str = ""


@dataclass(frozen=True)
class GenerateAnswer:
    """For each column its cells: prompt by prompt, each with all seeds."""

    columns: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class PreviewAnswer:
    """PNGs in base64, prompt by prompt, each with all seeds. edit_seconds: the closed form alone; seconds: in all.
    prompts: those that were asked for, and the hard terms that were added."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    edit_seconds: float
    seconds: float
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TermCoverage:
    """On `yes` of `of` pictures the base's judge sees the term."""

    text: str
    kind: str
    yes: int
    of: int


@dataclass(frozen=True)
class CoverageAnswer:
    terms: tuple[TermCoverage, ...]


@dataclass(frozen=True)
class TermDistance:
    """Distances to the target, and the place (x, y) on a map around it; None for a term that is too long."""

    text: str
    kind: str
    tokens: int
    cosine: float | None
    euclidean: float | None
    x: float | None
    y: float | None


@dataclass(frozen=True)
class Sphere:
    """The mean distance of the training corefs, and points [x, y] on a sphere of about that radius."""

    radius: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DistancesAnswer:
    """limit: tokens that the text encoder reads."""

    terms: tuple[TermDistance, ...]
    limit: int
    sphere: Sphere
