"""Does the model still draw it? Pictures of every term, before and after, shown to the judge."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from crce.concepts.spec import ConceptSpec, restrict
from crce.errors import CrceError
from crce.evaluation.questions import ASKS, Answers, Question, read_coverage
from crce.files import cache_file, read_json, write_json
from crce.generators import drain
from crce.judges.embedded import EmbeddedJudge, Verdict
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion

# The target gets five times the pictures of a term: it is one prompt, the others are ten and five.
TARGET_FACTOR = 5
# Pictures drawn between two reports of progress.
BATCH = 60

Progress = tuple[int, int]  # pictures done, of


def evaluate(
    model: Diffusion, spec: ConceptSpec, erased: ErasedWeights, *, images: int = 10, ask: str = "target"
) -> list[Answers]:
    """What the base's judge says of every term, on the same seeds before and after; see `accuracies` for the figures.

    images: pictures per term, of seeds 0, 1, …; five times as many of the target.
    ask: "target" asks of a coref's picture whether it shows the target, "coref" whether it shows the coref.
    Raises CrceError for a base without a judge, and for a target that the judge does not know.
    """
    steps = evaluate_steps(model, EmbeddedJudge.load(model.base), spec, erased, images, ask)
    return drain(steps)


def evaluate_steps(
    model: Diffusion,
    judge: EmbeddedJudge,
    spec: ConceptSpec,
    erased: ErasedWeights,
    images: int = 10,
    ask: str = "target",
) -> Generator[Progress, None, list[Answers]]:
    """`evaluate` with progress: yields the pictures done and wanted, and returns the answers."""
    asked = list_questions(spec, images, judge, ask, erased.erase_from)
    total, done = 2 * sum(len(q.seeds) for q in asked), 0
    verdicts: dict[bool, list[list[Verdict]]] = {False: [], True: []}
    for after in (False, True):
        for part in batch_questions(asked):
            verdicts[after] += judge_images(model, judge, part, erased if after else None)
            done += sum(len(q.seeds) for q in part)
            yield done, total
    covered = read_coverage(model.covered_file)
    return [_answers(*row, covered) for row in zip(asked, verdicts[False], verdicts[True], strict=True)]


def list_questions(
    spec: ConceptSpec, images: int, judge: EmbeddedJudge, ask: str = "target", erase_from: str | None = None
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


def name_target(spec: ConceptSpec, judge: EmbeddedJudge) -> str:
    """What the judge calls the target. Raises CrceError if the judge does not know it."""
    if name := judge.name_of(spec.name):
        return name
    raise CrceError(
        f"The judge of this base does not know {spec.name!r}, so it cannot say whether it is gone. "
        "Choose a concept that the base draws, or look at the pictures in Compare."
    )


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
    model: Diffusion, judge: EmbeddedJudge, asked: list[Question], erased: ErasedWeights | None = None
) -> list[list[Verdict]]:
    """For each question the verdict on each seed's picture; the base's own pictures are judged once and remembered."""
    files = {q: _verdicts_file(model, judge, q) for q in asked if not erased}
    known = {q: [Verdict(**v) for v in read_json(file)] for q, file in files.items() if file.exists()}
    fresh = [q for q in asked if q not in known]
    if not fresh:
        return [known[q] for q in asked]
    with erased.applied(model) if erased else nullcontext():
        pictures = model.generate_batch([q.text for q in fresh for _ in q.seeds], [s for q in fresh for s in q.seeds])
    for question in fresh:
        own, pictures = pictures[: len(question.seeds)], pictures[len(question.seeds) :]
        known[question] = judge.classify(own, question.asked)
        if question in files:
            write_json(files[question], [asdict(v) for v in known[question]])
    return [known[q] for q in asked]


def _verdicts_file(model: Diffusion, judge: EmbeddedJudge, question: Question) -> Path:
    """Where the verdicts on the base's own pictures lie, by all that they depend on."""
    drawn = [model.fingerprint, str(model.dtype), model.defaults.guidance, model.defaults.sample_steps]
    facts = [*drawn, judge.fingerprint, question.text, question.asked, question.seeds]
    return cache_file("verdicts", facts, ".json")


def _answers(
    question: Question, base: list[Verdict], after: list[Verdict], covered: Mapping[tuple[str, str], bool]
) -> Answers:
    return Answers(question.kind, question.text, question.split, question.asked,
                   covered.get((question.text, question.asked)), question.seeds, tuple(v.yes for v in after),
                   tuple(round(v.p, 4) for v in after), tuple(v.yes for v in base))  # fmt: skip
