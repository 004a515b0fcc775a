"""Draws what a tab asks for: columns of pictures with the judge's verdicts. Base pictures are kept on disk."""

import base64
import hashlib
import io
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import product
from pathlib import Path

from PIL import Image

from crce import bases, files, runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.coverage import judge_base
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights, combine
from crce.models import text_space
from crce.models.diffusion import Diffusion
from crce.training.estimate import estimate, is_quick
from crce.training.loop import solve_closed_form
from crce.worker.requests import (
    Column,
    CoverageRequest,
    DistancesRequest,
    EstimateRequest,
    GenerateRequest,
    PreviewRequest,
)

AT_ONCE = 8  # pictures between two looks at whether the tab still wants them
KEPT_BYTES = 512 << 20
TURN = 1.0  # seconds until a long answer lets others have their turn

Pair = tuple[str, int]  # prompt, seed
Weights = AbstractContextManager[object]


class Replaced(Exception):
    """The tab has asked for something else meanwhile."""


class Unfinished(Exception):
    """A part of the work is done and kept; others may have their turn before the rest."""


def draw(request: GenerateRequest, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]) -> dict:
    """The answer to a glance. Raises CrceError for a run that does not fit, Replaced if nobody waits any more."""
    pairs = list(product(request.prompts, request.seeds))
    columns = [
        _column(_weights(column, model), pairs, model, replaced) if column.run else _base(pairs, model, replaced)
        for column in request.columns
    ]
    asked = [concept for concept in request.ask for _ in request.seeds]
    return {"columns": [_cells(pngs, asked, judge) for pngs in columns]}


def preview(
    request: PreviewRequest, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> dict:
    """The answer to a glance: `prompts` before and after the instant edit (the method crce-uce) by the spec.

    Raises CrceError where the pictures would take minutes, Replaced if nobody waits any more.
    """
    check_quick(model)
    began = time.monotonic()
    delta = solve_closed_form(model, request.spec, EraseConfig("crce-uce"))
    solving = time.monotonic() - began
    pairs = list(product(request.prompts, request.seeds))
    before, after = _base(pairs, model, replaced), _column(delta.applied(model), pairs, model, replaced)
    return {
        "before": list(map(_encoded, before)),
        "after": list(map(_encoded, after)),
        "edit_seconds": round(solving, 3),
        "seconds": round(time.monotonic() - began, 3),
    }


def check_quick(model: Diffusion) -> None:
    """Raises CrceError for a model whose pictures take minutes here: a large one on a CPU."""
    if not is_quick(model):
        raise CrceError(
            f"Pictures of {model.base} would take minutes on a CPU, so none are drawn. "
            f"Use a GPU, or look at the concept on {bases.EMOJI_SD}."
        )


def coverage(
    request: CoverageRequest, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> dict:
    """The answer to a glance: on how many of seeds 0–9 the base shows the target, every coref (judged for the target)
    and every retain (judged for itself). Terms that the judge does not know are left out.

    Raises CrceError for a base without a judge or a target that it does not know, Unfinished after a second: asked
    again, it goes on where it was.
    """
    if not judge:
        raise CrceError(f"The base {model.base!r} brings no judge of its own. Look at the pictures instead.")
    check_quick(model)
    began, rows = time.monotonic(), []
    for question, verdicts in judge_base(model, judge, request.spec):
        facts = {"text": question.text, "kind": question.kind}
        rows.append({**facts, "yes": sum(v.yes for v in verdicts), "of": len(verdicts)})
        if time.monotonic() - began > TURN:
            raise Unfinished
    return {"terms": rows}


def distances(
    request: DistancesRequest, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> dict:
    """The answer to a glance: see `text_space.distances`."""
    return text_space.distances(model, request.spec)


def preflight(
    request: EstimateRequest, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]
) -> dict:
    """The answer to a glance: see `crce.cost.Cost`."""
    return asdict(estimate(model, request.specs, request.config))


HANDLERS = {"draw": draw, "preview": preview, "coverage": coverage, "distances": distances, "preflight": preflight}


def _base(pairs: list[Pair], model: Diffusion, replaced: Callable[[], bool]) -> list[bytes]:
    """The base's own PNGs of the pairs; each is drawn once and kept."""
    kept = {pair: path.read_bytes() for pair in pairs if (path := _kept(model, *pair)).exists()}
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in kept]
    for pair, png in zip(missing, _column(nullcontext(), missing, model, replaced), strict=True):
        files.write_atomic(_kept(model, *pair), png)
        kept[pair] = png
    return [kept[pair] for pair in pairs]


def _column(weights: Weights, pairs: list[Pair], model: Diffusion, replaced: Callable[[], bool]) -> list[bytes]:
    """PNGs of the pairs with these weights."""
    drawn, wanted = {}, list(dict.fromkeys(pairs))
    with weights:
        for start in range(0, len(wanted), AT_ONCE):
            if replaced():
                raise Replaced
            part = wanted[start : start + AT_ONCE]
            images = model.generate_batch([prompt for prompt, _ in part], [seed for _, seed in part])
            drawn |= dict(zip(part, map(to_png, images), strict=True))
    return [drawn[pair] for pair in pairs]


def _weights(column: Column, model: Diffusion) -> Weights:
    """The model with the runs' weights, for as long as the context is open."""
    deltas = [_delta(name, model) for name in (column.run, *column.also)]
    return combine(deltas, model).applied(model, column.strength)


def _delta(name: str, model: Diffusion) -> ErasedWeights:
    run = runs.find(name)
    if run.job.base != model.base:
        raise CrceError(f"The run {run.title!r} was made on {run.job.base}, and these pictures are of {model.base}.")
    if not run.erased:
        raise CrceError(f"The run {run.title!r} has no weights yet; wait until it is done.")
    return ErasedWeights.load(run.weights_path)


def _cells(pngs: list[bytes], asked: list[str | None], judge: EmbeddedJudge | None) -> list[dict]:
    return [{"png": _encoded(png), **_verdict(png, concept, judge)} for png, concept in zip(pngs, asked, strict=True)]


def _verdict(png: bytes, concept: str | None, judge: EmbeddedJudge | None) -> dict:
    if not (concept and judge and judge.knows(concept)):
        return {"yes": None, "p": None}
    verdict = judge.classify([Image.open(io.BytesIO(png))], concept)[0]
    return {"yes": verdict.yes, "p": round(verdict.p, 4)}


def _encoded(png: bytes) -> str:
    return base64.b64encode(png).decode()


def to_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _kept(model: Diffusion, prompt: str, seed: int) -> Path:
    """Where a picture of the base lies, by all that it depends on."""
    facts = [model.fingerprint, str(model.dtype), model.device.type, str(model.defaults), prompt, seed]
    return _folder() / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.png"


def _folder() -> Path:
    return files.home() / "pictures"


def tidy() -> None:
    """Removes the oldest kept pictures beyond half a GB."""
    total = 0
    for path in sorted(_folder().glob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True):
        total += path.stat().st_size
        if total > KEPT_BYTES:
            path.unlink()
