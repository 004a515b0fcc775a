"""How each kind of request is answered. Pictures of the base are kept on disk."""

import base64
import io
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from crce import bases, files, runs
from crce.cost import Cost
from crce.errors import CrceError
from crce.evaluation.coverage import judge_base
from crce.judges.judge import Judge, Verdict
from crce.methods.erased_weights import ErasedWeights, combine
from crce.models import text_space
from crce.models.diffusion import Diffusion
from crce.training.estimate import estimate, is_quick
from crce.training.loop import preview as edit_instantly
from crce.worker.answers import (
    Cell,
    CoverageAnswer,
    DistancesAnswer,
    GenerateAnswer,
    PreviewAnswer,
    Sphere,
    TermCoverage,
    TermDistance,
)

# Only as types: requests are read with pydantic, which no module that imports torch needs.
if TYPE_CHECKING:
    from crce.worker.requests import (
        Column,
        CoverageRequest,
        DistancesRequest,
        EstimateRequest,
        GenerateRequest,
        PreviewRequest,
    )

BATCH = 8  # pictures between two checks whether the request was replaced
CACHE = "pictures"
CACHE_BYTES = 512 << 20
MOST_SLOW = 4  # pictures that a person may ask for at a time where each takes minutes
TURN = 1.0  # seconds after which a long answer lets other requests go first

Pair = tuple[str, int]  # prompt, seed
Weights = AbstractContextManager[object]


class Replaced(Exception):
    """The tab has sent a newer request."""


class Unfinished(Exception):
    """A part of the work is done and kept; other requests go first, then the rest is done."""


# Every handler: the request, its base model, the base's judge where the request needs one and the base has one, and
# whether the request was replaced. All raise CrceError, and Replaced where they draw.


def generate(
    request: "GenerateRequest", model: Diffusion, judge: Judge | None, replaced: Callable[[], bool]
) -> GenerateAnswer:
    """Raises CrceError for a run that is missing, unfinished or of another base, and for many pictures that would take
    minutes each."""
    pairs = list(product(request.prompts, request.seeds))
    check_quick(model, request.in_all or len(request.columns) * len(pairs), MOST_SLOW)
    concepts = [concept for concept in request.ask for _ in request.seeds]
    columns = []
    for column in request.columns:
        if column.run:
            pngs = _draw(_load_weights(column, model), pairs, model, replaced)
        else:
            pngs = _draw_base(pairs, model, replaced)
        columns.append(pngs)
    asked = judge.among(request.neighbours) if judge else None
    return GenerateAnswer(tuple(_judge(pngs, concepts, asked) for pngs in columns))


def preview(
    request: "PreviewRequest", model: Diffusion, judge: Judge | None, replaced: Callable[[], bool]
) -> PreviewAnswer:
    """The prompts before and after the instant edit (the method crce-uce).

    Raises CrceError where the pictures would take minutes.
    """
    prompts = _add_hard(request, model) if request.fill else request.prompts
    check_quick(model, 2 * len(prompts) * len(request.seeds))
    began = time.monotonic()
    weights = edit_instantly(model, request.spec, request.anchor)
    edit_seconds = time.monotonic() - began
    pairs = list(product(prompts, request.seeds))
    before, after = _draw_base(pairs, model, replaced), _draw(weights.applied(model), pairs, model, replaced)
    seconds = time.monotonic() - began
    return PreviewAnswer(tuple(map(_encode, before)), tuple(map(_encode, after)), round(edit_seconds, 3),
                         round(seconds, 3), tuple(prompts))  # fmt: skip


def _add_hard(request: "PreviewRequest", model: Diffusion) -> list[str]:
    """The prompts, the names before the neighbours, each with the hardest up to `fill`: a preview of easy terms would
    flatter."""
    spec, asked = request.spec, request.prompts
    hardest = text_space.list_hardest(model, spec)
    lists = [[term.text for term in spec.corefs], [term.text for term in spec.retains]]
    shown = [text for text in asked if text not in (*lists[0], *lists[1])]
    for texts, hard in zip(lists, hardest, strict=True):
        shown += list(dict.fromkeys([*(text for text in asked if text in texts), *hard]))[: request.fill]
    return shown


def check_quick(model: Diffusion, pictures: int, most: int = 0) -> None:
    """Raises CrceError for more than `most` pictures of a model that takes minutes for each: a large one on a CPU."""
    if pictures <= most or is_quick(model):
        return
    slow = f"{pictures} pictures of {bases.public_name(model.base)} would take minutes each on a CPU"
    limit = (
        f"so at most {most} are drawn at once: two prompts on one seed, before and after"
        if most
        else "so none are drawn"
    )
    raise CrceError(f"{slow}, {limit}. Use a GPU, or look at the concept on {bases.EMOJI_SD}.")


def measure_coverage(
    request: "CoverageRequest", model: Diffusion, judge: Judge | None, replaced: Callable[[], bool]
) -> CoverageAnswer:
    """On how many of seeds 0–9 the base shows the target, every coref (judged for the target) and every retain (judged
    for itself). Terms that the judge does not know are left out.

    Raises CrceError for a base without a judge and for a target that it does not know; Unfinished after a second:
    called again, it continues where it was.
    """
    if not judge:
        raise CrceError(
            f"The base {bases.public_name(model.base)!r} brings no judge of its own. Look at the pictures instead."
        )
    check_quick(model, len(request.spec.corefs) + len(request.spec.retains) + 1)
    began, terms = time.monotonic(), []
    for question, verdicts in judge_base(model, judge, request.spec):
        terms.append(TermCoverage(question.text, question.kind, sum(v.yes for v in verdicts), len(verdicts)))
        if time.monotonic() - began > TURN:
            raise Unfinished
    return CoverageAnswer(tuple(terms))


def measure_distances(
    request: "DistancesRequest", model: Diffusion, judge: Judge | None, replaced: Callable[[], bool]
) -> DistancesAnswer:
    """See `text_space.measure_distances`."""
    found = text_space.measure_distances(model, request.spec)
    sphere = Sphere(found["sphere"]["radius"], tuple((x, y) for x, y in found["sphere"]["points"]))
    return DistancesAnswer(tuple(TermDistance(**term) for term in found["terms"]), found["limit"], sphere)


def estimate_cost(
    request: "EstimateRequest", model: Diffusion, judge: Judge | None, replaced: Callable[[], bool]
) -> Cost:
    """While a run is at work, the estimate is for its precision: a second copy of the base might not fit."""
    return estimate(model, request.specs, request.config)


HANDLERS: dict[str, Callable[[Any, Diffusion, Judge | None, Callable[[], bool]], Any]] = {
    "generate": generate,
    "preview": preview,
    "coverage": measure_coverage,
    "distances": measure_distances,
    "estimate": estimate_cost,
}


def _draw_base(pairs: Sequence[Pair], model: Diffusion, replaced: Callable[[], bool]) -> list[bytes]:
    """The base's own PNGs of the pairs; each is drawn once and kept."""
    cached = {pair: path.read_bytes() for pair in pairs if (path := _cache_file(model, *pair)).exists()}
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in cached]
    for pair, png in zip(missing, _draw(nullcontext(), missing, model, replaced), strict=True):
        files.write_atomic(_cache_file(model, *pair), png)
        cached[pair] = png
    return [cached[pair] for pair in pairs]


def _draw(weights: Weights, pairs: Sequence[Pair], model: Diffusion, replaced: Callable[[], bool]) -> list[bytes]:
    """PNGs of the pairs with these weights."""
    drawn: dict[Pair, bytes] = {}
    wanted = list(dict.fromkeys(pairs))
    with weights:
        size = BATCH if is_quick(model) else 1
        for start in range(0, len(wanted), size):
            if replaced():
                raise Replaced
            part = wanted[start : start + size]
            images = model.generate_batch([prompt for prompt, _ in part], [seed for _, seed in part])
            drawn |= dict(zip(part, map(to_png, images), strict=True))
    return [drawn[pair] for pair in pairs]


def _load_weights(column: "Column", model: Diffusion) -> Weights:
    """The model with the runs' weights, for as long as the context is open."""
    weights = [_load_run(name, model) for name in (column.run, *column.also) if name]
    return combine(weights, model).applied(model, column.strength)


def _load_run(name: str, model: Diffusion) -> ErasedWeights:
    run = runs.find(name)
    if run.job.base != model.base:
        made, drawn = bases.public_name(run.job.base), bases.public_name(model.base)
        raise CrceError(f"The run {run.title!r} was made on {made}, and these pictures are of {drawn}.")
    run.check_base(model.digest)
    if not run.erased:
        raise CrceError(f"The run {run.title!r} has no weights yet; wait until it is done.")
    return ErasedWeights.load(run.weights_path)


def _judge(pngs: Sequence[bytes], concepts: Sequence[str | None], judge: Judge | None) -> tuple[Cell, ...]:
    """Each picture with the verdict on its concept, where there is a judge that knows it."""
    verdicts: dict[int, Verdict] = {}
    for concept in dict.fromkeys(concepts):
        if concept and judge and judge.knows(concept):
            places = [place for place, other in enumerate(concepts) if other == concept]
            images: list[Image.Image] = [Image.open(io.BytesIO(pngs[place])) for place in places]
            verdicts |= dict(zip(places, judge.classify(images, concept), strict=True))
    return tuple(
        Cell(_encode(png), verdict.yes, round(verdict.p, 4), verdict.guess)
        if (verdict := verdicts.get(place))
        else Cell(_encode(png))
        for place, png in enumerate(pngs)
    )


def _encode(png: bytes) -> str:
    return base64.b64encode(png).decode()


def to_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _cache_file(model: Diffusion, prompt: str, seed: int) -> Path:
    """Keyed by everything that the base's picture depends on."""
    facts = [model.fingerprint, str(model.dtype), model.device.type, str(model.defaults), prompt, seed]
    return files.cache_file(CACHE, facts, ".png")


def tidy() -> None:
    """Removes the oldest pictures beyond half a GB."""
    total = 0
    for path in sorted((files.home() / CACHE).glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > CACHE_BYTES:
            path.unlink()
