"""Training cost on a GPU at SD v1.4's size with random weights: bf16, trained K and V in fp32. Takes a few minutes.

    python -m benchmarks.gpu          on the GPU
    python -m benchmarks.gpu --try    a dry run of all code with a small U-Net, on any machine

It needs only torch, diffusers, transformers, safetensors, numpy and PIL.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure
from benchmarks.loop import describe_peak, measure_method, time_per_step
from benchmarks.machine import describe_machine
from benchmarks.sizes import sd_v1_4, spec
from crce.config import EraseConfig, resolve_config
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.latent_cache import TRAJECTORY
from crce.training.loop import TrainState, erase_steps, noise_sample, train_once

RUN, STEPS = 500, 20  # steps of the whole run, and of each variant
TOP = 25  # rows of the profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="tried", action="store_true", help="a small U-Net, few steps")
    small = parser.parse_args().tried
    model = Diffusion.load(device="cpu") if small else sd_v1_4()
    config = resolve_config(EraseConfig(steps=2 if small else RUN, checkpoint_every=10**5), model.base)
    weights = sum(p.numel() for p in model.unet.parameters())
    print(f"{describe_machine()}; U-Net of {weights / 1e6:.0f} M in {model.dtype} at {model.latent_shape}", flush=True)
    list(erase_steps(model, spec(), replace(config, steps=2)))  # warm-up
    seconds = time_run(model, config)
    count_flops(model, config, seconds)
    profile_step(model, config)
    if not small:
        for method in ("crce", "esd-x-strict"):
            for figure in measure_method(model, spec(), method):
                print(figure.line, flush=True)
    # Last, because a compiled U-Net stays compiled.
    compare_variants(model, config, 2 if small else STEPS, "eager" if small else "inductor")


def time_run(model: Diffusion, config: EraseConfig) -> float:
    """The seconds of a whole run in one batch per step, including the sampling of latents; n = 1."""
    seconds = time_per_step(model, lambda: list(erase_steps(model, spec(), config)), 1)
    print(Figure(f"CRCE, {config.steps} steps and their latents", (seconds,), describe_peak(model)).line, flush=True)
    return seconds


def count_flops(model: Diffusion, config: EraseConfig, seconds: float) -> None:
    """The FLOPs of that run, counted by torch for one step and one prediction of the latent cache."""
    tuned, bank = start_run(model, config)
    step = count(lambda: train_once(tuned, [bank]))
    prediction = count(lambda: predict_bank(model, config))
    total = step * config.steps + prediction * TRAJECTORY
    print(
        f"{step / 1e12:.2f} TFLOP per step, {prediction / 1e12:.2f} per latent cache prediction ({TRAJECTORY} of them)"
    )
    print(f"{total / 1e15:.3f} PFLOP in all, {total / seconds / 1e12:.1f} TFLOP/s reached", flush=True)


def count(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as flops:
        work()
    return flops.get_total_flops()


@torch.no_grad()
def predict_bank(model: Diffusion, config: EraseConfig) -> None:
    x = model.noise([0]).expand(2 * math.ceil(config.steps / TRAJECTORY), -1, -1, -1)
    model.predict(x, torch.full((len(x),), 500, device=model.device), model.embed([""]).expand(len(x), -1, -1))


def start_run(model: Diffusion, config: EraseConfig) -> tuple[TrainState, NoisySample]:
    """A run before its first step, and a latent for it."""
    return TrainState(model, (spec(),), config), noise_sample(model, config)


def profile_step(model: Diffusion, config: EraseConfig) -> None:
    """Profiles a step."""
    tuned, bank = start_run(model, config)
    train_once(tuned, [bank])
    gpu = model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as found:
        time_per_step(model, lambda: [train_once(tuned, [bank]) for _ in range(3)])
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=70), flush=True)


def compare_variants(model: Diffusion, config: EraseConfig, steps: int, backend: str) -> None:
    """Times a step as it is, and with possible optimisations, each after two warm-up steps."""
    plain = time_step(model, config, steps)
    print(f"a step: {plain:.4f} s, n = {steps}")
    model.unet.to(memory_format=torch.channels_last)
    report_variant("channels last", plain, time_step(model, config, steps))
    model.unet.to(memory_format=torch.contiguous_format).compile(backend=backend)
    report_variant("compiled", plain, time_step(model, config, steps))


def report_variant(label: str, plain: float, seconds: float) -> None:
    print(f"{label}: {seconds:.4f} s per step, {plain / seconds:.2f} times as fast", flush=True)


def time_step(model: Diffusion, config: EraseConfig, steps: int) -> float:
    tuned, bank = start_run(model, config)
    for _ in range(2):
        train_once(tuned, [bank])
    return time_per_step(model, lambda: [train_once(tuned, [bank]) for _ in range(steps)], steps)


if __name__ == "__main__":
    main()
