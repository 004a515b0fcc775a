"""A run on a base of SD v1.4's size with random values, on this machine's processor: `crce erase dog --steps 2` in
fp32, one term at a time, without previews. Its latents, 50 guided predictions, take most of the time.

A row is one prompt through the U-Net, forward; a row with its backward pass counts as two.

What a processor is not asked to do at this size: the app draws no instant preview, measures no coverage, compares at
most four pictures at a time, and draws no previews while a run trains; a run's time is not estimated, only counted in
rows.

    python -m benchmarks.full_size              pictures of 512×512, latents of 64×64
    python -m benchmarks.full_size --side 32    the run at 256×256, on a machine that has other work; one term with its
                                                backward pass is still measured at 512×512
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, make_parser, show
from benchmarks.sd_shaped import FULL, Size, all_merges, save_sd_shaped
from crce.files import home
from crce.runs import open_run
from crce.runs.events import CostEvent, EstimateEvent, PhaseEvent, StepEvent

STEPS, SIDE = 2, 64
# Of a step of CRCE: 9 terms with gradient, 3 held by the frozen model.
STEP_ROWS = 2 * 9 + 3


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="of the latents")
    asked = parser.parse_args()
    show("full_size", __doc__, measure(asked.side), asked.keep)


def measure(side: int) -> Iterator[Figure]:
    base, out = save_base(side), home() / "sd-shaped" / f"run-{int(time.time())}"
    settings = {"base": base, "steps": STEPS, "microbatch-size": 1, "dtype": "fp32", "preview-every": 0, "out": out}
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    began = time.perf_counter()
    peak, _ = run_and_watch(["crce", "erase", "dog", *options])
    yield Figure("the whole command", (time.perf_counter() - began,), f"{STEPS} steps, latents of {side}×{side}")
    yield from describe(out)
    yield Figure("memory of the process at most", (peak / 2**30,), unit="GiB")
    yield from measure_term()


def measure_term() -> Iterator[Figure]:
    """One term with its backward pass, of a picture of 512×512, as it is and where memory is short."""
    for how, option in (("", []), (" and gradient checkpointing", ["--recompute"])):
        _, said = run_and_watch(["benchmarks.full_size_step", str(save_base(SIDE)), *option])
        seconds, kept = map(float, said.split())
        note = f"{kept / 2**30:.2f} GiB of memory at most beside the model"
        yield Figure(f"one term with its backward pass{how}, latents of {SIDE}×{SIDE}", (seconds,), note)


def save_base(side: int) -> Path:
    """The folder of a base of SD v1.4's size with latents of this side, written once."""
    import torch

    base = home() / "sd-shaped" / f"full-{side}"
    if not (base / "text_encoder" / "model.safetensors").exists():
        # For a U-Net of an older version, diffusers takes a smaller sample for a mistake.
        size = FULL if side == SIDE else Size({"_diffusers_version": "0.9.0", "sample_size": side}, {}, {})
        save_sd_shaped(base, size, all_merges(), (torch.bfloat16,))
    return base


def run_and_watch(command: list[str]) -> tuple[int, str]:
    """The most bytes that a module with these arguments held, and what it printed. Raises CalledProcessError."""
    with subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss * 1024, said


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


if __name__ == "__main__":
    main()
