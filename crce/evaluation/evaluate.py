"""Does the model still draw it? Pictures of every term, before and after, shown to the judge."""

import io
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from crce.concepts.drawn import read_covered
from crce.concepts.spec import ConceptSpec, restrict
from crce.errors import CrceError
from crce.evaluation.questions import ASKS, DISTRACTOR, TARGET_FACTOR, Answers, Question
from crce.files import cache_file, read_json, write_atomic, write_json
from crce.generators import drain
from crce.judges.choices import AUTO
from crce.judges.judge import Judge, Verdict
from crce.judges.load import load_judge
from crce.methods.erased_weights import ErasedWeights
from crce.models import text_space
from crce.models.diffusion import Diffusion

# Things that look like nothing else here and that every base draws.
DISTRACTORS = ("guitar", "banana", "bus", "apple")
# Pictures drawn between two reports of progress.
BATCH = 60
SIDE = 64  # pixels at which pictures before and after are compared

Progress = tuple[int, int]  # pictures done, of


@dataclass(frozen=True)
class Look:
    """The verdicts on a question's pictures; small: the pictures of a retain, uint8 [n, 64, 64, 3], else None."""

    verdicts: list[Verdict]
    small: np.ndarray | None = None


def evaluate(
    model: Diffusion,
    spec: ConceptSpec,
    erased: ErasedWeights,
    *,
    images: int = 10,
    ask: str = "target",
    judge: str = AUTO,
) -> list[Answers]:
    """What a judge says of every term, on the same seeds before and after; see `accuracies` for the figures.

    images: pictures per term, of seeds 0, 1, …; five times as many of the target.
    ask: "target" asks of a coref's picture whether it shows the target, "coref" whether it shows the coref.
    judge: see `judges.load`; "auto" is the base's own.
    Raises CrceError for a base without a judge, and for a target that the judge does not know.
    """
    steps = evaluate_steps(model, load_judge(model.base, judge, str(model.device)), spec, erased, images, ask)
    return drain(steps)


def evaluate_steps(
    model: Diffusion,
    judge: Judge,
    spec: ConceptSpec,
    erased: ErasedWeights,
    images: int = 10,
    ask: str = "target",
) -> Generator[Progress, None, list[Answers]]:
    """`evaluate` with progress: yields the pictures done and wanted, and returns the answers.

    The last are those to a distractor, which has a part in no figure.
    """
    judge = judge.among(list_concepts(spec, judge))
    asked = [*list_questions(spec, images, judge, ask, erased.erase_from), ask_distractor(spec, images, judge)]
    total, done = 2 * sum(len(q.seeds) for q in asked), 0
    looks: dict[bool, list[Look]] = {False: [], True: []}
    for after in (False, True):
        for part in batch_questions(asked):
            looks[after] += look(model, judge, part, erased if after else None)
            done += sum(len(q.seeds) for q in part)
            yield done, total
    covered, distances = read_covered(model.covered_file).covered, _measure_distances(model, spec)
    rows = zip(asked, looks[False], looks[True], strict=True)
    return [
        _answers(question, base, after, covered.get((question.text, question.asked)), distances.get(question.text))
        for question, base, after in rows
    ]


def _measure_distances(model: Diffusion, spec: ConceptSpec) -> dict[str, float | None]:
    """Of each term to the target; None for one that the text encoder cannot read."""
    return {row["text"]: row["euclidean"] for row in text_space.measure_distances(model, spec)["terms"]}


def list_questions(
    spec: ConceptSpec, images: int, judge: Judge, ask: str = "target", erase_from: str | None = None
) -> list[Question]:
    """§4.1: the target, every coref and every retain.

    X of "does it show X?" is the target for corefs (our reading; ask="coref" asks for the phrase) and the
    retain itself for retains. A term that the judge has no answer for is left out.
    erase_from: the only concept that the target was erased from: then its pictures are drawn in the target's place.
    Raises CrceError for another `ask`, and for a target that the judge does not know.
    """
    if ask not in ASKS:
        raise CrceError(f"ask is {ask!r}; use one of {', '.join(ASKS)}.")
    target = name_target(spec, judge)
    drawn = restrict(spec, erase_from) if erase_from else spec
    names = [target if ask == "target" else t.text for t in spec.corefs]
    terms = [("coref", t, name) for t, name in zip(drawn.corefs, names, strict=True)]
    terms += [("retain", t, t.text) for t in drawn.retains]
    asked = [Question(kind, t.text, t.split, x, tuple(range(images))) for kind, t, x in terms if judge.knows(x)]
    return [Question("target", drawn.target, "train", target, tuple(range(TARGET_FACTOR * images))), *asked]


def name_target(spec: ConceptSpec, judge: Judge) -> str:
    """What the judge calls the target. Raises CrceError if the judge does not know it."""
    if name := judge.name_of(spec.name):
        return name
    raise CrceError(
        f"The judge of this base does not know {spec.name!r}, so it cannot say whether it is gone. "
        "Choose a concept that the base draws, or look at the pictures in Compare."
    )


def list_concepts(spec: ConceptSpec, judge: Judge) -> list[str]:
    """What pictures of the spec's terms may show: the target and every retain."""
    return [name_target(spec, judge), *(term.text for term in spec.retains)]


def ask_distractor(spec: ConceptSpec, images: int, judge: Judge) -> Question:
    """Pictures of something that the spec does not name, asked for the target."""
    words = set(" ".join([spec.name, *(term.text for term in (*spec.corefs, *spec.retains))]).lower().split())
    text = next((thing for thing in DISTRACTORS if thing not in words), DISTRACTORS[0])
    return Question(DISTRACTOR, text, "test", name_target(spec, judge), tuple(range(images)))


def batch_questions(asked: list[Question]) -> Iterator[list[Question]]:
    """Consecutive questions that fill a batch of pictures: fewer, larger batches are drawn faster."""
    part: list[Question] = []
    for question in asked:
        part.append(question)
        if sum(len(q.seeds) for q in part) >= BATCH:
            yield part
            part = []
    if part:
        yield part


def judge_images(
    model: Diffusion, judge: Judge, asked: list[Question], erased: ErasedWeights | None = None
) -> list[list[Verdict]]:
    """For each question the verdict on each seed's picture."""
    return [seen.verdicts for seen in look(model, judge, asked, erased)]


def look(model: Diffusion, judge: Judge, asked: list[Question], erased: ErasedWeights | None = None) -> list[Look]:
    """Draws and judges each question's pictures; the base's own are drawn and judged once and remembered."""
    files = {q: _verdicts_file(model, judge, q) for q in asked if not erased}
    known = {q: seen for q, file in files.items() if (seen := _recall(file, q))}
    fresh = [q for q in asked if q not in known]
    if not fresh:
        return [known[q] for q in asked]
    with erased.applied(model) if erased else nullcontext():
        pictures = model.generate_batch([q.text for q in fresh for _ in q.seeds], [s for q in fresh for s in q.seeds])
    for question in fresh:
        own, pictures = pictures[: len(question.seeds)], pictures[len(question.seeds) :]
        small = _shrink(own) if question.kind == "retain" else None
        known[question] = Look(judge.classify(own, question.asked), small)
        if question in files:
            _remember(files[question], known[question])
    return [known[q] for q in asked]


def _recall(file: Path, question: Question) -> Look | None:
    """What is remembered of the base's own pictures; None if anything is missing."""
    strip = file.with_suffix(".png")
    if not file.exists() or (question.kind == "retain" and not strip.exists()):
        return None
    verdicts = [Verdict(**facts) for facts in read_json(file)]
    if question.kind != "retain":
        return Look(verdicts)
    with Image.open(strip) as image:
        return Look(verdicts, np.asarray(image.convert("RGB")).reshape(-1, SIDE, SIDE, 3))


def _remember(file: Path, seen: Look) -> None:
    if seen.small is not None:
        data = io.BytesIO()
        Image.fromarray(seen.small.reshape(-1, SIDE, 3)).save(data, "PNG")
        write_atomic(file.with_suffix(".png"), data.getvalue())
    write_json(file, [asdict(verdict) for verdict in seen.verdicts])


def _shrink(images: list[Image.Image]) -> np.ndarray:
    small = [image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in small])


def _verdicts_file(model: Diffusion, judge: Judge, question: Question) -> Path:
    """Where the verdicts on the base's own pictures lie, by all that they depend on."""
    drawn = [model.fingerprint, str(model.dtype), model.defaults.guidance, model.defaults.sample_steps]
    told = [field.name for field in fields(Verdict)]
    facts = [*drawn, judge.fingerprint, told, question.text, question.asked, question.seeds]
    return cache_file("verdicts", facts, ".json")


def _answers(question: Question, base: Look, after: Look, covered: bool | None, distance: float | None) -> Answers:
    return Answers(
        question.kind, question.text, question.split, question.asked, covered, question.seeds,
        yes=tuple(v.yes for v in after.verdicts),
        p=tuple(round(v.p, 4) for v in after.verdicts),
        base_yes=tuple(v.yes for v in base.verdicts),
        strict=tuple(v.strict for v in after.verdicts),
        base_strict=tuple(v.strict for v in base.verdicts),
        guesses=tuple(v.guess for v in after.verdicts if v.guess),
        top=_tops(after),
        base_top=_tops(base),
        moved=_measure_change(base, after),
        distance=distance,
    )  # fmt: skip


def _tops(seen: Look) -> tuple[float, ...]:
    return tuple(round(v.top, 3) for v in seen.verdicts if v.top is not None)


def _measure_change(base: Look, after: Look) -> float | None:
    """Mean absolute difference of the pictures, in 0 … 1."""
    if base.small is None or after.small is None:
        return None
    return round(float(np.abs(base.small.astype(float) - after.small).mean() / 255), 4)
