"""Does it still draw it? Pictures of every term, before and after, shown to the judge."""

import hashlib
import json
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.evaluation.questions import Answers, Question
from crce.files import home, read_json, write_json
from crce.judges.embedded import EmbeddedJudge, Verdict
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion

# The target gets five times the pictures of a term: it is one prompt, the others are ten and five.
TARGET_FACTOR = 5
ASKS = ("target", "coref")
# Pictures between two signs of life.
BATCH = 60
COVERED_SEEDS = range(10)
COVERED_FROM = 5


def questions(spec: ConceptSpec, images: int, judge: EmbeddedJudge, ask: str = "target") -> list[Question]:
    """§4.1: the target, every coref and every retain.

    X of "does it show X?" is the target for corefs (our reading; ask="coref" asks for the phrase) and the
    retain itself for retains. A term that the judge has no answer for is left out.
    """
    if ask not in ASKS:
        raise CrceError(f"ask is {ask!r}; use one of {', '.join(ASKS)}.")
    target = target_name(spec, judge)
    terms = [("coref", t, target if ask == "target" else t.text) for t in spec.corefs]
    terms += [("retain", t, t.text) for t in spec.retains]
    asked = [Question(kind, t.text, t.split, x, tuple(range(images))) for kind, t, x in terms if judge.knows(x)]
    return [Question("target", spec.target, "train", target, tuple(range(TARGET_FACTOR * images))), *asked]


def target_name(spec: ConceptSpec, judge: EmbeddedJudge) -> str:
    """What the judge calls the target. Raises CrceError if it does not know it."""
    if name := judge.name_of(spec.name):
        return name
    raise CrceError(
        f"The judge of this base does not know {spec.name!r}, so it cannot say whether it is gone. "
        "Choose a concept that the base draws, or look at the pictures in Compare."
    )


def evaluate(
    model: Diffusion,
    judge: EmbeddedJudge,
    spec: ConceptSpec,
    delta: ErasedWeights,
    images: int = 10,
    ask: str = "target",
) -> Generator[tuple[int, int], None, list[Answers]]:
    """The judge's answers for every term, on the same seeds before and after.

    Yields (done, of) in pictures after every term, and returns the answers: `answers = yield from evaluate(…)`.
    """
    asked = questions(spec, images, judge, ask)
    total, done = 2 * sum(len(q.seeds) for q in asked), 0
    found: dict[bool, list[list[Verdict]]] = {False: [], True: []}
    for erased in (False, True):
        for part in _batches(asked):
            found[erased] += look(model, judge, part, delta if erased else None)
            done += sum(len(q.seeds) for q in part)
            yield done, total
    covered = coverage_of(model)
    return [_joined(*row, covered) for row in zip(asked, found[False], found[True], strict=True)]


def _batches(asked: list[Question]) -> Iterator[list[Question]]:
    """Consecutive questions that fill a batch of pictures: fewer, larger batches draw faster."""
    part: list[Question] = []
    for question in asked:
        part.append(question)
        if sum(len(q.seeds) for q in part) >= BATCH:
            yield part
            part = []
    if part:
        yield part


def _joined(question: Question, base: list[Verdict], after: list[Verdict], covered: dict) -> Answers:
    return Answers(question.kind, question.text, question.split, question.asked,
                   covered.get((question.text, question.asked)), question.seeds, tuple(v.yes for v in after),
                   tuple(round(v.p, 4) for v in after), tuple(v.yes for v in base))  # fmt: skip


def look(
    model: Diffusion, judge: EmbeddedJudge, asked: list[Question], delta: ErasedWeights | None = None
) -> list[list[Verdict]]:
    """For each question the verdict on each seed's picture; what the base draws is judged once and remembered."""
    files = {q: _memory(model, judge, q) for q in asked if not delta}
    known = {q: [Verdict(**v) for v in read_json(file)] for q, file in files.items() if file.exists()}
    fresh = [q for q in asked if q not in known]
    if not fresh:
        return [known[q] for q in asked]
    with delta.applied(model) if delta else nullcontext():
        pictures = model.generate_batch([q.text for q in fresh for _ in q.seeds], [s for q in fresh for s in q.seeds])
    for question in fresh:
        mine, pictures = pictures[: len(question.seeds)], pictures[len(question.seeds) :]
        known[question] = judge.classify(mine, question.asked)
        if question in files:
            write_json(files[question], [asdict(v) for v in known[question]])
    return [known[q] for q in asked]


def _memory(model: Diffusion, judge: EmbeddedJudge, question: Question) -> Path:
    """Where the verdicts on the base's own pictures lie: keyed by all that they depend on."""
    drawn = [model.fingerprint, str(model.dtype), model.defaults.guidance, model.defaults.sample_steps]
    facts = [*drawn, judge.fingerprint, question.text, question.asked, question.seeds]
    return home() / "verdicts" / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


def coverage(
    model: Diffusion, judge: EmbeddedJudge, specs: list[ConceptSpec]
) -> Generator[tuple[int, int], None, dict]:
    """covered.json: for the terms of the specs and the name of every concept that the judge knows, how many of
    seeds 0–9 show it on the base. A term is covered from 5. Yields (done, of) in terms.
    """
    asked = {(q.text, q.asked): q for spec in specs for q in _measured(spec, judge)}
    names = {(name, name): Question("name", name, "", name, tuple(COVERED_SEEDS)) for name in judge.names}
    everything = {**names, **asked}
    yes = {}
    for part in _batches(list(everything.values())):
        yes |= {
            (q.text, q.asked): sum(v.yes for v in row) for q, row in zip(part, look(model, judge, part), strict=True)
        }
        yield len(yes), len(everything)
    rows = [{"text": text, "asked": asked, "yes": n, "of": len(COVERED_SEEDS)} for (text, asked), n in yes.items()]
    return {
        "model": model.fingerprint,
        "judge": judge.fingerprint,
        "seeds": list(COVERED_SEEDS),
        "from": COVERED_FROM,
        "concepts": {s.slug: _covered(s, judge, yes) for s in specs if _asks(s, judge)},
        "terms": rows,
    }


def base_verdicts(
    model: Diffusion, judge: EmbeddedJudge, spec: ConceptSpec
) -> Iterator[tuple[Question, list[Verdict]]]:
    """What the judge says of the base's own pictures of each term, seeds 0–9; drawn as they are asked for.

    Raises CrceError for a target that it does not know.
    """
    for question in _at_covered_seeds(spec, judge):
        yield question, *look(model, judge, [question])


def _measured(spec: ConceptSpec, judge: EmbeddedJudge) -> list[Question]:
    if not _asks(spec, judge):
        return []
    return _at_covered_seeds(spec, judge)


def _at_covered_seeds(spec: ConceptSpec, judge: EmbeddedJudge) -> list[Question]:
    return [replace(q, seeds=tuple(COVERED_SEEDS)) for q in questions(spec, 1, judge)]


def _asks(spec: ConceptSpec, judge: EmbeddedJudge) -> bool:
    return judge.knows(spec.name)


def _covered(spec: ConceptSpec, judge: EmbeddedJudge, yes: dict) -> dict:
    """How many of each list the base draws, and whether that is enough for a table: 6 + 3 corefs, 5 + 3 retains."""
    drawn = [q for q in _measured(spec, judge) if yes[q.text, q.asked] >= COVERED_FROM]
    counts = {f"{kind}s_{split}": sum((q.kind, q.split) == (kind, split) for q in drawn)
              for kind in ("coref", "retain") for split in ("train", "test")}  # fmt: skip
    name = yes[spec.target, target_name(spec, judge)]
    enough = {"corefs_train": 6, "corefs_test": 3, "retains_train": 5, "retains_test": 3}
    covered = name >= COVERED_FROM and all(counts[key] >= least for key, least in enough.items())
    return {"name": name, **counts, "covered": covered}


def coverage_of(model: Diffusion) -> dict[tuple[str, str], bool]:
    """(text, asked) → whether the base draws it, from the covered.json beside the model; empty where there is none."""
    if not model.covered_file.exists():
        return {}
    return {(r["text"], r["asked"]): r["yes"] >= COVERED_FROM for r in read_json(model.covered_file)["terms"]}
