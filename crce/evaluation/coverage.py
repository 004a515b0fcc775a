"""What the base model draws at all, as its judge sees it: accuracies count only terms that it does draw."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from crce.concepts.spec import ConceptSpec
from crce.evaluation.evaluate import (
    ask_distractor,
    batch_questions,
    judge_images,
    list_concepts,
    list_questions,
    name_target,
)
from crce.evaluation.questions import COVERED_FROM, Calibration, Question
from crce.files import read_json
from crce.judges.judge import Judge, Verdict
from crce.models.diffusion import Diffusion

COVERED_SEEDS = range(10)
# Terms of each list that the base must draw for a concept to enter a table.
ENOUGH = {"corefs_train": 6, "corefs_test": 3, "retains_train": 5, "retains_test": 3}


def measure_coverage(
    model: Diffusion, judge: Judge, specs: Sequence[ConceptSpec], names: Sequence[str] = ()
) -> Generator[tuple[int, int], None, dict]:
    """covered.json: for the terms of the specs and for further names, on how many of seeds 0–9 the base shows them.
    A term is covered from 5. "unknown" are the concepts that the judge does not know, so the base neither. What the
    base's covered.json holds already is kept, unless another model or judge wrote it. Yields the terms done and wanted.
    """
    found = _read_kept(model, judge)
    yes = {(row["text"], row["asked"]): row["yes"] for row in found["terms"]}
    known = [spec for spec in specs if judge.knows(spec.name)]
    asked = {(q.text, q.asked): q for spec in known for q in _questions(spec, judge)}
    asked |= {(name, name): Question("name", name, "", name, tuple(COVERED_SEEDS)) for name in names}
    fresh = [question for key, question in asked.items() if key not in yes]
    for part in batch_questions(fresh):
        for question, verdicts in zip(part, judge_images(model, judge, part), strict=True):
            yes[question.text, question.asked] = sum(v.yes for v in verdicts)
        yield len(yes), len(asked.keys() | yes.keys())
    rows = [{"text": text, "asked": asked, "yes": n, "of": len(COVERED_SEEDS)} for (text, asked), n in yes.items()]
    concepts = {**found["concepts"], **{spec.slug: _summarise(spec, judge, yes) for spec in known}}
    unknown = {spec.slug for spec in specs}.union(found["unknown"]) - concepts.keys()
    return {**found, "concepts": dict(sorted(concepts.items())), "unknown": sorted(unknown), "terms": rows}


def _read_kept(model: Diffusion, judge: Judge) -> dict:
    """The base's covered.json as far as it is of this model and this judge; else one that is empty."""
    facts = {"model": model.digest, "judge": judge.fingerprint, "seeds": list(COVERED_SEEDS), "from": COVERED_FROM}
    empty = {"concepts": {}, "unknown": [], "terms": [], **facts}
    kept = read_json(model.covered_file) if model.covered_file.exists() else {}
    return {**empty, **kept} if facts.items() <= kept.items() else empty


def judge_base(model: Diffusion, judge: Judge, spec: ConceptSpec) -> Iterator[tuple[Question, list[Verdict]]]:
    """What the judge says of the base's own pictures of each term, seeds 0–9; drawn as they are asked for.

    Raises CrceError for a target that the judge does not know.
    """
    yield from _judge_each(model, judge.among(list_concepts(spec, judge)), _questions(spec, judge))


def calibrate(model: Diffusion, judge: Judge, spec: ConceptSpec) -> Iterator[Calibration]:
    """How often the judge says yes to the base's own pictures, seeds 0–9: of each term, and of a distractor, of which
    it should never say it. Tells whether the judge and the terms can show anything, before any erasure.

    Raises CrceError for a target that the judge does not know.
    """
    judge = judge.among(list_concepts(spec, judge))
    asked = [*_questions(spec, judge), ask_distractor(spec, len(COVERED_SEEDS), judge)]
    for question, verdicts in _judge_each(model, judge, asked):
        yield Calibration(question.kind, question.text, question.asked, sum(v.yes for v in verdicts), len(verdicts))


def _judge_each(model: Diffusion, judge: Judge, asked: list[Question]) -> Iterator[tuple[Question, list[Verdict]]]:
    for question in asked:
        (verdicts,) = judge_images(model, judge, [question])
        yield question, verdicts


def _questions(spec: ConceptSpec, judge: Judge) -> list[Question]:
    return [replace(q, seeds=tuple(COVERED_SEEDS)) for q in list_questions(spec, 1, judge)]


def _summarise(spec: ConceptSpec, judge: Judge, yes: dict[tuple[str, str], int]) -> dict:
    """How many terms of each list the base draws, and whether that is `ENOUGH`."""
    drawn = [q for q in _questions(spec, judge) if yes[q.text, q.asked] >= COVERED_FROM]
    counts = {
        f"{kind}s_{split}": sum((q.kind, q.split) == (kind, split) for q in drawn)
        for kind in ("coref", "retain")
        for split in ("train", "test")
    }
    name = yes[spec.target, name_target(spec, judge)]
    covered = name >= COVERED_FROM and all(counts[key] >= least for key, least in ENOUGH.items())
    return {"name": name, **counts, "covered": covered}
