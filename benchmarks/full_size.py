"""A run on a base of SD v1.4's size with random values, on this machine's processor: `crce erase dog --steps 2` in
bf16, one term at a time. Its latents, 50 guided predictions, take most of the time.

A row is one prompt through the U-Net, forward, at 64×64 latents; a row with its backward pass counts as two.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, make_parser, show
from benchmarks.sd_shaped import FULL, all_merges, save_sd_shaped
from crce.files import home
from crce.runs import open_run
from crce.runs.events import CostEvent, EstimateEvent, PhaseEvent, StepEvent

STEPS, LATENTS = 2, 50
# Of a step of CRCE: 9 terms with gradient, 3 held by the frozen model.
STEP_ROWS = 2 * 9 + 3


def main() -> None:
    show("full_size", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    import torch

    base, out = home() / "sd-shaped" / "full", home() / "sd-shaped" / f"run-{int(time.time())}"
    if not (base / "text_encoder" / "model.safetensors").exists():
        save_sd_shaped(base, FULL, all_merges(), (torch.bfloat16,))
    command = [
        "erase",
        "dog",
        "--base",
        base,
        "--steps",
        STEPS,
        "--microbatch-size",
        1,
        "--dtype",
        "bf16",
        "--out",
        out,
    ]
    began = time.perf_counter()
    peak = run_and_watch([sys.executable, "-m", "crce", *map(str, command)])
    yield Figure("the whole command", (time.perf_counter() - began,), f"{STEPS} steps")
    yield from describe(out)
    yield Figure("memory of the process at most", (peak / 2**30,), unit="GiB")


def run_and_watch(command: list[str]) -> int:
    """The most bytes that the command held in memory. Raises CalledProcessError."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return usage.ru_maxrss * 1024


def describe(out: Path) -> Iterator[Figure]:
    """What the run's own events say."""
    run = open_run(out)
    bank = [event for event in run.events() if isinstance(event, PhaseEvent) and event.phase == "bank"]
    first, last = bank[0], bank[-1]
    each = (last.time - first.time) / (last.done - first.done) / 2
    yield Figure("a row of the latent cache", (each,), f"mean of {2 * (last.done - first.done)} rows, two at once")
    steps = [event for event in run.events() if isinstance(event, StepEvent)]
    ends = [last.time, *(event.time for event in steps)]
    times = tuple(after - before for before, after in zip(ends, ends[1:], strict=False))
    yield Figure("a step of `crce`", times, f"{min(times) / STEP_ROWS:.1f} s a row")
    told, took = run.last(EstimateEvent), run.last(CostEvent)
    if told and took:
        note = f"estimated before: {told.memory / 2**30:.2f} GiB and {told.rows} rows"
        yield Figure("training alone", (took.seconds,), note)
    (out / "full_size.json").write_text(json.dumps({"steps": times}))


if __name__ == "__main__":
    main()
