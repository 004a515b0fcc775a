"""What one click on the default model takes: CRCE with its preset, and the closed forms."""

import time
from statistics import median

from benchmarks.machine import named
from crce.config import EraseConfig
from crce.diffusion import Diffusion
from crce.erase import erase, solved
from crce.library import find_spec

REPEATS = 5
CLOSED_FORMS = ("crce-uce", "uce", "crce-null", "speed")


def main() -> None:
    print(named())
    began = time.perf_counter()
    model, spec = Diffusion.load(), find_spec("dog")
    print(f"loading {model.base}: {time.perf_counter() - began:.1f} s, n = 1", flush=True)
    for method in CLOSED_FORMS:
        times = [clocked(lambda method=method: solved(model, spec, EraseConfig(method))) for _ in range(REPEATS)]
        # The first has the text encoder's work in it.
        print(f"{method}: {times[0]:.2f} s the first time, median {median(times):.2f} s, n = {REPEATS}", flush=True)
    seconds = clocked(lambda: list(erase(model, spec, EraseConfig())))
    print(f"crce with the preset, training and its bank: {seconds:.1f} s, n = 1")


def clocked(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
