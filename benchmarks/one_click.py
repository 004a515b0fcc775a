"""One erasure on the default model: CRCE with its preset, and the closed forms."""

import time
from collections.abc import Iterator
from functools import partial

from benchmarks.figures import Figure, make_parser, show, time_call
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps, solve_closed_form

REPEATS = 5
CLOSED_FORMS = ("crce-uce", "uce", "crce-null", "speed")


def main() -> None:
    show("one_click", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    began = time.perf_counter()
    model, spec = Diffusion.load(), find_concept("dog")
    yield Figure("loading the model", (time.perf_counter() - began,))
    for method in CLOSED_FORMS:
        work = partial(solve_closed_form, model, spec, EraseConfig(method))
        times = [time_call(work) for _ in range(REPEATS)]
        yield Figure(f"`{method}`", tuple(times), f"{times[0]:.2f} s the first time, including text encoding")
    run = time_call(lambda: list(erase_steps(model, spec, EraseConfig())))
    yield Figure("`crce` with the preset, including the sampling of latents", (run,))


if __name__ == "__main__":
    main()
