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
from crce.judges.embedded import EmbeddedJudge
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
    request: "GenerateRequest", model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> GenerateAnswer:
    """Raises CrceError for a run that is missing, unfinished or of another base."""
    pairs = list(product(request.prompts, request.seeds))
    concepts = [concept for concept in request.ask for _ in request.seeds]
    columns = []
    for column in request.columns:
        if column.run:
            pngs = _draw(_load_weights(column, model), pairs, model, replaced)
        else:
            pngs = _draw_base(pairs, model, replaced)
        columns.append(pngs)
    cells = (tuple(_judge(*pair, judge) for pair in zip(pngs, concepts, strict=True)) for pngs in columns)
    return GenerateAnswer(tuple(cells))


def preview(
    request: "PreviewRequest", model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> PreviewAnswer:
    """The prompts before and after the instant edit (the method crce-uce).

    Raises CrceError where the pictures would take minutes.
    """
    check_quick(model)
    began = time.monotonic()
    weights = edit_instantly(model, request.spec, request.anchor)
    edit_seconds = time.monotonic() - began
    pairs = list(product(request.prompts, request.seeds))
    before, after = _draw_base(pairs, model, replaced), _draw(weights.applied(model), pairs, model, replaced)
    seconds = time.monotonic() - began
    return PreviewAnswer(tuple(map(_encode, before)), tuple(map(_encode, after)), round(edit_seconds, 3),
                         round(seconds, 3))  # fmt: skip


def check_quick(model: Diffusion) -> None:
    """Raises CrceError for a model whose pictures take minutes here: a large one on a CPU."""
    if not is_quick(model):
        raise CrceError(
            f"Pictures of {model.base} would take minutes on a CPU, so none are drawn. "
            f"Use a GPU, or look at the concept on {bases.EMOJI_SD}."
        )


def measure_coverage(
    request: "CoverageRequest", model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> CoverageAnswer:
    """On how many of seeds 0–9 the base shows the target, every coref (judged for the target) and every retain (judged
    for itself). Terms that the judge does not know are left out.

    Raises CrceError for a base without a judge and for a target that it does not know; Unfinished after a second:
    called again, it continues where it was.
    """
    if not judge:
        raise CrceError(f"The base {model.base!r} brings no judge of its own. Look at the pictures instead.")
    check_quick(model)
    began, terms = time.monotonic(), []
    for question, verdicts in judge_base(model, judge, request.spec):
        terms.append(TermCoverage(question.text, question.kind, sum(v.yes for v in verdicts), len(verdicts)))
        if time.monotonic() - began > TURN:
            raise Unfinished
    return CoverageAnswer(tuple(terms))


def measure_distances(
    request: "DistancesRequest", model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> DistancesAnswer:
    """See `text_space.measure_distances`."""
    found = text_space.measure_distances(model, request.spec)
    sphere = Sphere(found["sphere"]["radius"], tuple((x, y) for x, y in found["sphere"]["points"]))
    return DistancesAnswer(tuple(TermDistance(**term) for term in found["terms"]), found["limit"], sphere)


def estimate_cost(
    request: "EstimateRequest", model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> Cost:
    return estimate(model, request.specs, request.config)


HANDLERS: dict[str, Callable[[Any, Diffusion, EmbeddedJudge | None, Callable[[], bool]], Any]] = {
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
        for start in range(0, len(wanted), BATCH):
            if replaced():
                raise Replaced
            part = wanted[start : start + BATCH]
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
        raise CrceError(f"The run {run.title!r} was made on {run.job.base}, and these pictures are of {model.base}.")
    if not run.erased:
        raise CrceError(f"The run {run.title!r} has no weights yet; wait until it is done.")
    return ErasedWeights.load(run.weights_path)


def _judge(png: bytes, concept: str | None, judge: EmbeddedJudge | None) -> Cell:
    if not (concept and judge and judge.knows(concept)):
        return Cell(_encode(png))
    verdict = judge.classify([Image.open(io.BytesIO(png))], concept)[0]
    return Cell(_encode(png), verdict.yes, round(verdict.p, 4))


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
