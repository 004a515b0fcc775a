"""The instant preview on the default model: seconds from the request to the last thumbnail (seven prompts before and
after), with an idle worker and during training. Each request has a new edit; pictures before it are cached, as in the
app.

First, drawing seven prompts in one process: fp32 and bf16, in one batch and one at a time.
"""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median

from benchmarks.figures import Figure, make_parser, show, time_call
from crce import bases, runs
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.runs import Job
from crce.runs.events import StepEvent
from crce.worker import client
from crce.worker.requests import PreviewRequest, StatusRequest

REPEATS = 7
PATIENCE = 300


def main() -> None:
    show("preview", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    spec = find_concept("frog")
    prompts = [spec.target, *(t.text for t in (*spec.train_corefs[:3], *spec.train_retains[:3]))]
    yield from time_drawing(prompts)
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRCE_HOME"] = home
        yield time_previews("the first, with loading", spec, prompts, 1)
        yield time_previews("idle", spec, prompts)
        run = runs.create(Job(bases.EMOJI_SD, spec, EraseConfig(steps=1000, preview_every=0)))
        wait_until(lambda: run.last(StepEvent))
        yield time_previews("while a run trains", spec, prompts)
        run.request_stop()
        wait_until(lambda: run.state == "stopped")
        stop_worker()


def time_drawing(prompts: list[str]) -> Iterator[Figure]:
    seeds = [0] * len(prompts)
    for dtype in ("fp32", "bf16"):
        model = Diffusion.load(dtype=dtype)
        whole, single = partial(model.generate_batch, prompts, seeds), partial(draw_one_by_one, model, prompts)
        whole()
        yield Figure(f"drawing alone, {dtype}, one batch", tuple(time_call(whole) for _ in range(REPEATS)))
        yield Figure(f"drawing alone, {dtype}, one by one", tuple(time_call(single) for _ in range(REPEATS)))


def draw_one_by_one(model: Diffusion, prompts: list[str]) -> None:
    for prompt in prompts:
        model.generate_batch([prompt], [0])


def time_previews(label: str, spec: ConceptSpec, prompts: list[str], repeats: int = REPEATS) -> Figure:
    """Each request drops another retain, so that no two edits are equal."""
    times, edits = [], []
    for number in range(repeats):
        edited = replace(spec, retains=spec.retains[:number] + spec.retains[number + 1 :])
        request = PreviewRequest("bench", bases.EMOJI_SD, edited, prompts)
        began = time.perf_counter()
        answer = client.send(request, PATIENCE)
        times.append(time.perf_counter() - began)
        assert answer, "nobody else asks, so it is not replaced"
        edits.append(answer.edit_seconds)
    return Figure(f"request to last thumbnail, {label}", tuple(times), f"the edit itself {median(edits):.3f} s")


def stop_worker() -> None:
    status = client.send(StatusRequest(), PATIENCE)
    if status:
        os.kill(status.pid, signal.SIGTERM)


def wait_until(true: Callable[[], object]) -> None:
    while not true():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
