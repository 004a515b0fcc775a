"""What a GPU is asked for, at SD v1.4's size with random weights: bf16, the tuned K and V in fp32. A few minutes.

    python -m benchmarks.gpu          the GPU
    python -m benchmarks.gpu --try    every line of it on a small U-Net, anywhere; its figures mean nothing

It needs torch, diffusers, transformers, safetensors, numpy and PIL alone.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure
from benchmarks.loop import clocked, peak, timed
from benchmarks.machine import named
from benchmarks.sizes import sd_v1_4, spec
from crce.config import EraseConfig, resolve_config
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.estimate import noise_sample
from crce.training.latent_cache import TRAJECTORY
from crce.training.loop import TrainState, erase_steps, train_once

RUN, STEPS = 500, 20  # steps of the run, and of each variant
TOP = 25  # rows of the profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="tried", action="store_true", help="a small U-Net, few steps")
    small = parser.parse_args().tried
    model = Diffusion.load(device="cpu") if small else sd_v1_4()
    config = resolve_config(EraseConfig(steps=2 if small else RUN, checkpoint_every=10**5), model.base)
    weights = sum(p.numel() for p in model.unet.parameters())
    print(f"{named()}; U-Net of {weights / 1e6:.0f} M in {model.dtype} at {model.latent_shape}", flush=True)
    list(erase_steps(model, spec(), replace(config, steps=2)))  # warms up
    seconds = whole(model, config)
    rate(model, config, seconds)
    profiled(model, config)
    if not small:
        for method in ("crce", "esd-x-strict"):
            for figure in timed(model, spec(), method):
                print(figure.line, flush=True)
    # Last, for a compiled U-Net stays so.
    variants(model, config, 2 if small else STEPS, "eager" if small else "inductor")


def whole(model: Diffusion, config: EraseConfig) -> float:
    """Seconds of a whole run with all rows at once, the bank's sampling included; n = 1."""
    seconds = clocked(model, lambda: list(erase_steps(model, spec(), config)), 1)
    print(Figure(f"CRCE, {config.steps} steps and their bank", (seconds,), peak(model)).line, flush=True)
    return seconds


def rate(model: Diffusion, config: EraseConfig, seconds: float) -> None:
    """What is computed in that run, as torch counts one step and one prediction of the bank."""
    tuned, bank = started(model, config)
    step = counted(lambda: train_once(tuned, [bank]))
    prediction = counted(lambda: predict_bank(model, config))
    total = step * config.steps + prediction * TRAJECTORY
    print(f"{step / 1e12:.2f} TFLOP a step, {prediction / 1e12:.2f} a prediction of the bank ({TRAJECTORY} of them)")
    print(f"{total / 1e15:.3f} PFLOP in all, {total / seconds / 1e12:.1f} TFLOP/s reached", flush=True)


def counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as flops:
        work()
    return flops.get_total_flops()


@torch.no_grad()
def predict_bank(model: Diffusion, config: EraseConfig) -> None:
    x = model.noise([0]).expand(2 * math.ceil(config.steps / TRAJECTORY), -1, -1, -1)
    model.predict(x, torch.full((len(x),), 500, device=model.device), model.embed([""]).expand(len(x), -1, -1))


def started(model: Diffusion, config: EraseConfig) -> tuple[TrainState, NoisySample]:
    """A run before its first step, and a bank for it."""
    return TrainState(model, (spec(),), config), noise_sample(model, config)


def profiled(model: Diffusion, config: EraseConfig) -> None:
    """Where the time of a step goes."""
    tuned, bank = started(model, config)
    train_once(tuned, [bank])
    gpu = model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as found:
        clocked(model, lambda: [train_once(tuned, [bank]) for _ in range(3)])
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=70), flush=True)


def variants(model: Diffusion, config: EraseConfig, steps: int, backend: str) -> None:
    """A step as it is, and with what might pay. Each is measured after two steps that warm it up."""
    plain = each(model, config, steps)
    print(f"a step: {plain:.4f} s, n = {steps}")
    model.unet.to(memory_format=torch.channels_last)
    told("channels last", plain, each(model, config, steps))
    model.unet.to(memory_format=torch.contiguous_format).compile(backend=backend)
    told("compiled", plain, each(model, config, steps))


def told(label: str, plain: float, seconds: float) -> None:
    print(f"{label}: {seconds:.4f} s a step, {plain / seconds:.2f} times as fast", flush=True)


def each(model: Diffusion, config: EraseConfig, steps: int) -> float:
    tuned, bank = started(model, config)
    for _ in range(2):
        train_once(tuned, [bank])
    return clocked(model, lambda: [train_once(tuned, [bank]) for _ in range(steps)], steps)


if __name__ == "__main__":
    main()
