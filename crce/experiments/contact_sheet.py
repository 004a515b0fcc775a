"""Contact sheet of all methods on one concept: methods × prompts on the same seeds, and the CPU time of each."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from crce import runs
from crce.catalogue import METHOD_FACTS
from crce.cost import machine
from crce.experiments.tables import JobEvent, execute_job
from crce.files import read_json, write_json
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion
from crce.picture_grid import GONE, KEPT, GridRow, Label, draw_grid
from crce.runs import Job, Run
from crce.runs.models import Models

SEEDS = (0, 1)
TERMS = 3  # held-out corefs, and as many retains
SIDE = 64  # pixels of a picture


def contact_sheet(job: Job, folder: Path) -> Iterator[JobEvent]:
    """Erases the job's concept with every method, then writes methods.png and seconds.json to `folder`.

    Finished methods are not run again, so a stopped sheet can be continued. Yields the runs' events. Raises CrceError
    for a run that fails.
    """
    models, costs = Models(), folder / "seconds.json"
    for method in METHOD_FACTS:
        run = _open_run(replace(job, config=replace(job.config, method=method, steps=None, lr=None)), folder)
        if not run.erased:
            began = time.process_time()
            yield from execute_job(run, models)
            _record(costs, run.job, round(time.process_time() - began, 1))
    _draw_rows(models.get(job.base, job.device, job.dtype), job, folder).save(folder / "methods.png")
    shutil.rmtree(folder / ".runs")


def _open_run(job: Job, folder: Path) -> Run:
    place = folder / ".runs" / job.config.method
    return runs.open_run(place) if place.exists() else runs.create(job, place, queued=False)


def _record(path: Path, job: Job, seconds: float) -> None:
    """Records CPU seconds of all threads, which other processes on the machine hardly affect."""
    known: dict = read_json(path) if path.exists() else {"concept": job.spec.name, "machine": machine()}
    write_json(path, {**known, "methods": {**known.get("methods", {}), job.config.method: seconds}})


def _draw_rows(model: Diffusion, job: Job, folder: Path) -> Image.Image:
    """Rows of methods, columns of prompts: the target, then held-out corefs and retains."""
    corefs, retains = job.spec.test_corefs[:TERMS], job.spec.test_retains[:TERMS]
    gone = [job.spec.target, *(term.text for term in corefs)]
    kept = [term.text for term in retains]
    columns = [*(Label(p, "must go", GONE) for p in gone), *(Label(p, "must stay", KEPT) for p in kept)]
    rows = [GridRow(Label("before"), _draw_cells(model, [*gone, *kept]))]
    for method, facts in METHOD_FACTS.items():
        with ErasedWeights.load(Run(folder / ".runs" / method).weights_path).applied(model):
            rows.append(GridRow(Label(facts.title), _draw_cells(model, [*gone, *kept])))
    return draw_grid(columns, rows, SIDE)


def _draw_cells(model: Diffusion, prompts: list[str]) -> list[list[Image.Image]]:
    """The pictures of each prompt, one per seed."""
    pictures = model.generate_batch([p for p in prompts for _ in SEEDS], list(SEEDS) * len(prompts))
    return [pictures[start : start + len(SEEDS)] for start in range(0, len(pictures), len(SEEDS))]
