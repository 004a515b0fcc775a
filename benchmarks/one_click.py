"""What one click on the default model takes: CRCE with its preset, and the closed forms."""

import time
from collections.abc import Iterator

from benchmarks.figures import Figure, clocked, options, show
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.training.loop import erase_steps, solve_closed_form

REPEATS = 5
CLOSED_FORMS = ("crce-uce", "uce", "crce-null", "speed")


def main() -> None:
    show("one_click", __doc__, measured(), options(__doc__).parse_args().keep)


def measured() -> Iterator[Figure]:
    began = time.perf_counter()
    model, spec = Diffusion.load(), find_concept("dog")
    yield Figure("loading the model", (time.perf_counter() - began,))
    for method in CLOSED_FORMS:
        times = [
            clocked(lambda method=method: solve_closed_form(model, spec, EraseConfig(method))) for _ in range(REPEATS)
        ]
        yield Figure(f"`{method}`", tuple(times), f"{times[0]:.2f} s the first time, with the text encoder's work")
    run = clocked(lambda: list(erase_steps(model, spec, EraseConfig())))
    yield Figure("`crce` with the preset, training and its bank", (run,))


if __name__ == "__main__":
    main()
