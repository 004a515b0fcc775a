"""Contact sheet of all methods on one concept: methods × prompts on the same seeds, and the CPU time of each."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from crce import runs
from crce.catalogue import METHOD_FACTS
from crce.cost import machine
from crce.experiments.tables import run_job
from crce.files import read_json, write_json
from crce.models.diffusion import Diffusion
from crce.models.erased_weights import ErasedWeights
from crce.runs import Job, Run
from crce.runs.models import Models

SEEDS = (0, 1)
TERMS = 3  # held-out corefs, and as many retains
SIDE, GAP, HEAD, LABEL = 64, 4, 46, 150
INK, GONE, KEPT = "#0f172a", "#d6336c", "#0b8a72"


def contact_sheet(job: Job, folder: Path) -> Iterator[dict]:
    """Erases the job's concept with every method, then writes methods.png and seconds.json to `folder`.

    Finished methods are not run again, so a stopped sheet can be continued. Yields the runs' events. Raises CrceError
    for a run that fails.
    """
    models, costs = Models(), folder / "seconds.json"
    for method in METHOD_FACTS:
        run = _open_run(replace(job, config=replace(job.config, method=method, steps=None, lr=None)), folder)
        if not run.erased:
            began = time.process_time()
            yield from run_job(run, models)
            _record(costs, run.job, round(time.process_time() - began, 1))
    _draw_rows(models.get(job.base, job.device, job.dtype), job, folder).save(folder / "methods.png")
    shutil.rmtree(folder / ".runs")


def _open_run(job: Job, folder: Path) -> Run:
    place = folder / ".runs" / job.config.method
    return runs.opened(place) if place.exists() else runs.create(job, place, queued=False)


def _record(path: Path, job: Job, seconds: float) -> None:
    """Records CPU seconds of all threads, which other processes on the machine hardly affect."""
    known: dict = read_json(path) if path.exists() else {"concept": job.spec.name, "machine": machine()}
    write_json(path, {**known, "methods": {**known.get("methods", {}), job.config.method: seconds}})


def _draw_rows(model: Diffusion, job: Job, folder: Path) -> Image.Image:
    corefs, retains = job.spec.test_corefs[:TERMS], job.spec.test_retains[:TERMS]
    prompts = [job.spec.target, *(term.text for term in (*corefs, *retains))]
    asked, seeds = [p for p in prompts for _ in SEEDS], list(SEEDS) * len(prompts)
    rows = {"before": model.generate(asked, seeds)}
    for method, card in METHOD_FACTS.items():
        with ErasedWeights.load(folder / ".runs" / method / "delta.safetensors").applied(model):
            rows[card.title] = model.generate(asked, seeds)
    return _compose(prompts, 1 + len(corefs), rows)


def _compose(prompts: list[str], going: int, rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Prompts as columns, of which the first `going` must be erased; methods as rows."""
    wide = len(SEEDS) * (SIDE + GAP) + 2 * GAP
    image = Image.new("RGB", (LABEL + len(prompts) * wide, HEAD + len(rows) * (SIDE + GAP)), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for place, prompt in enumerate(prompts):
        pen.text((LABEL + place * wide, 6), prompt, INK, font)
        says, colour = ("must go", GONE) if place < going else ("must stay", KEPT)
        pen.text((LABEL + place * wide, 24), says, colour, font)
    for number, (title, pictures) in enumerate(rows.items()):
        top = HEAD + number * (SIDE + GAP)
        pen.text((8, top + SIDE // 2 - 8), title, INK, font)
        for place, picture in enumerate(pictures):
            column, seed = divmod(place, len(SEEDS))
            image.paste(picture.resize((SIDE, SIDE)), (LABEL + column * wide + seed * (SIDE + GAP), top))
    return image
