"""Draws what a tab asks for: columns of pictures with the judge's verdicts. Base pictures are kept on disk."""

import base64
import hashlib
import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from pathlib import Path

from PIL import Image

from crce import files, runs
from crce.delta import Delta
from crce.diffusion import Diffusion
from crce.errors import CrceError
from crce.glances import Column, Draw
from crce.judge import EmbeddedJudge

AT_ONCE = 8  # pictures between two looks at whether the tab still wants them
KEPT_BYTES = 512 << 20


class Replaced(Exception):
    """The tab has asked for something else meanwhile."""


def draw(request: Draw, model: Diffusion, judge: EmbeddedJudge | None, replaced: Callable[[], bool]) -> dict:
    """The answer to a glance. Raises CrceError for a run that does not fit, Replaced if nobody waits any more."""
    pairs = list(product(request.prompts, request.seeds))
    columns = [_column(column, pairs, model, replaced) for column in request.columns]
    asked = [concept for concept in request.ask for _ in request.seeds]
    return {"columns": [_cells(pngs, asked, judge) for pngs in columns]}


def _column(column: Column, pairs: list, model: Diffusion, replaced: Callable[[], bool]) -> list[bytes]:
    """PNGs, in the order of the pairs (prompt, seed)."""
    kept = {pair: path.read_bytes() for pair in pairs if not column.run and (path := _kept(model, *pair)).exists()}
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in kept]
    with _weights(column, model):
        for start in range(0, len(missing), AT_ONCE):
            if replaced():
                raise Replaced
            part = missing[start : start + AT_ONCE]
            drawn = model.generate([prompt for prompt, _ in part], [seed for _, seed in part])
            kept |= dict(zip(part, map(to_png, drawn), strict=True))
    if not column.run:
        for pair in missing:
            files.write_atomic(_kept(model, *pair), kept[pair])
    return [kept[pair] for pair in pairs]


def _weights(column: Column, model: Diffusion):
    """The model with the column's weights, for as long as the context is open."""
    if column.run is None:
        return nullcontext()
    run = runs.find(column.run)
    if run.job.base != model.base:
        raise CrceError(f"The run {run.title!r} was made on {run.job.base}, and these pictures are of {model.base}.")
    if not run.erased:
        raise CrceError(f"The run {run.title!r} has no weights yet; wait until it is done.")
    return Delta.load(run.delta_path).applied(model, column.strength)


def _cells(pngs: list[bytes], asked: list[str | None], judge: EmbeddedJudge | None) -> list[dict]:
    return [
        {"png": base64.b64encode(png).decode(), **_verdict(png, concept, judge)}
        for png, concept in zip(pngs, asked, strict=True)
    ]


def _verdict(png: bytes, concept: str | None, judge: EmbeddedJudge | None) -> dict:
    if not (concept and judge and judge.knows(concept)):
        return {"yes": None, "p": None}
    verdict = judge.shows([Image.open(io.BytesIO(png))], concept)[0]
    return {"yes": verdict.yes, "p": round(verdict.p, 4)}


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
