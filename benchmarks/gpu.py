"""What a person waits for on a GPU, at SD v1.4's size with random weights: a hundred steps of CRCE with the paper's
terms from loading the base to the saved result, where that time goes, and a training step beside ESD's public loop in
the same dtype.

    python -m benchmarks.gpu          on the GPU, under 9 minutes
    python -m benchmarks.gpu --try    all of its code in seconds, with the default model, on any machine

Previews of three prompts are drawn before the first and after every 50th step, with 50 sampling steps each, and the
checkpoints are written as in a run. Attention is torch's own fused one (SDPA) in all of them. Each figure is kept once
it is measured. It needs only torch, diffusers, transformers, safetensors, numpy and PIL.
"""

import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, make_parser, show
from benchmarks.loop import describe_peak, measure_method, time_per_step
from benchmarks.sizes import sd_v1_4_pipeline, spec
from crce import bases
from crce.config import EraseConfig, ResolvedConfig, resolve_config
from crce.models.diffusion import Diffusion
from crce.models.memory import free_memory
from crce.training.estimate import reset_peak_memory
from crce.training.latent_cache import TRAJECTORY, LatentCache
from crce.training.loop import TrainState, erase_steps, noise_caches, train_once

RUN, STEPS = 100, 20  # steps of the whole run, and of each variant
LIMIT = 480  # seconds after which no further part begins
TOP = 40  # rows of the profile
PARTS = {"bank": "its latents", "train": "its steps, with checkpoints"}
# What the time of a step goes to, by what stands in the names of kernels and operations; the first that fits counts.
KINDS = {
    "attention": ("attention", "flash", "fmha", "softmax"),
    "convolutions": ("conv", "cudnn", "implicit", "winograd", "wgrad", "dgrad"),
    "matrix products": ("gemm", "mm", "cutlass", "nvjet", "linear"),
    "norms": ("norm",),
    "all else, element by element": ("",),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--try", dest="tried", action="store_true", help="the default model and few steps")
    asked = parser.parse_args()
    show("gpu", __doc__, measure(asked.tried), asked.keep and not asked.tried)


def measure(small: bool) -> Iterator[Figure]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = bases.EMOJI_SD if small else save_base(Path(folder) / "base")
        config = resolve_config(EraseConfig(steps=2 if small else RUN, preview_every=1 if small else 50), base)
        model = Diffusion.load(base)
        list(erase_steps(model, spec(), replace(config, steps=2)))  # warm-up: kernels are chosen and loaded once
        del model
        free_memory()
        yield from run_to_the_end(base, config, Path(folder))
        model = Diffusion.load(base)
        parts = (compare_loops, count_flops, divide_step, compare_variants)
        for part in parts:
            if time.monotonic() - began > LIMIT:
                print(f"{part.__name__} and what follows are left out: {LIMIT} s are over", flush=True)
                return
            yield from part(model, config, small)


def save_base(folder: Path) -> str:
    sd_v1_4_pipeline().save_pretrained(folder)
    free_memory()
    return str(folder)


def run_to_the_end(base: str, config: ResolvedConfig, folder: Path) -> Iterator[Figure]:
    """A whole run, and its parts in seconds; n = 1."""
    spent: dict[str, float] = defaultdict(float)
    began = time.perf_counter()

    def note(part: str, since: float) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        spent[part] += now - since
        return now

    model = Diffusion.load(base)
    now = note("loading the base", began)
    reset_peak_memory(model)
    draw_previews(model)
    now = note("its previews", now)
    for step in erase_steps(model, spec(), config, checkpoint=folder / "checkpoint.safetensors"):
        now = note(PARTS[step.phase], now)
        if step.phase == "train" and step.number % config.preview_every == 0:
            with step.weights().applied(model):
                draw_previews(model)
            now = note("its previews", now)
    step.weights().save(folder / "delta.safetensors")
    end = note("saving the result", now)
    yield Figure(f"CRCE, {config.steps} steps, from loading to the result", (end - began,), describe_peak(model))
    for part, seconds in spent.items():
        yield Figure(part, (seconds,), f"{seconds / (end - began):.0%}")


def draw_previews(model: Diffusion) -> None:
    prompts = [spec().target, spec().corefs[0].text, spec().retains[0].text]
    model.generate_batch(prompts, [0] * len(prompts))


def compare_loops(model: Diffusion, config: ResolvedConfig, small: bool) -> Iterator[Figure]:
    """Seconds per step of ESD's public loop and of both of ours, and what each has in memory."""
    if small:
        return
    for method in ("crce", "esd-x-strict"):
        yield from measure_method(model, spec(), method)
        free_memory()


def count_flops(model: Diffusion, config: ResolvedConfig, small: bool) -> Iterator[Figure]:
    """The FLOPs of the run, counted by torch for one step and one prediction of the latent cache."""
    state, caches = start_run(model, config)
    step = count(lambda: train_once(state, caches))
    prediction = count(lambda: predict_cache(model, config))
    total = step * config.steps + prediction * TRAJECTORY
    note = f"{step / 1e12:.2f} TFLOP a step, {prediction / 1e12:.2f} for each of {TRAJECTORY} predictions of latents"
    yield Figure("computed by the run without its previews", (total / 1e15,), note, "PFLOP")


def count(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as flops:
        work()
    return flops.get_total_flops()


@torch.no_grad()
def predict_cache(model: Diffusion, config: ResolvedConfig) -> None:
    x = model.noise([0]).expand(2 * math.ceil(config.steps / TRAJECTORY), -1, -1, -1)
    model.predict(x, torch.full((len(x),), 500, device=model.device), model.embed([""]).expand(len(x), -1, -1))


def start_run(model: Diffusion, config: ResolvedConfig) -> tuple[TrainState, list[LatentCache]]:
    """A run before its first step, and a latent for it."""
    state = TrainState(model, (spec(),), config)
    return state, noise_caches(state)


def divide_step(model: Diffusion, config: ResolvedConfig, small: bool) -> Iterator[Figure]:
    """What the time of a step goes to. The profile itself is printed, and written where the figures go."""
    state, caches = start_run(model, config)
    train_once(state, caches)
    gpu = model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as found:
        time_per_step(model, lambda: train_once(state, caches), 1)
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=90)
    if out := os.environ.get("OUT"):
        (Path(out) / "gpu-profile.txt").write_text(table)
    spent: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        name = event.key.lower()
        kind = next(kind for kind, parts in KINDS.items() if any(part in name for part in parts))
        spent[kind] += getattr(event, order) / 1e6
    for kind in KINDS:
        yield Figure(f"of a step: {kind}", (spent[kind],), f"{spent[kind] / sum(spent.values()):.0%}")


def compare_variants(model: Diffusion, config: ResolvedConfig, small: bool) -> Iterator[Figure]:
    """A step as it is, and with what may make it faster, each after two warm-up steps."""
    steps = 2 if small else STEPS
    plain = time_step(model, config, steps)
    yield Figure("a step", (plain,), f"mean of {steps}")
    torch.backends.cudnn.benchmark = True
    yield name_variant("a step, kernels of cuDNN tried out", plain, time_step(model, config, steps))
    model.unet.to(memory_format=torch.channels_last)
    yield name_variant("the same, channels last", plain, time_step(model, config, steps))
    # Last, because a compiled U-Net stays compiled.
    model.unet.compile(backend="eager" if small else "inductor")
    yield name_variant("the same, compiled", plain, time_step(model, config, steps))


def name_variant(label: str, plain: float, seconds: float) -> Figure:
    return Figure(label, (seconds,), f"{plain / seconds:.2f} times as fast as a step")


def time_step(model: Diffusion, config: ResolvedConfig, steps: int) -> float:
    state, caches = start_run(model, config)
    for _ in range(2):
        train_once(state, caches)
    return time_per_step(model, lambda: [train_once(state, caches) for _ in range(steps)], steps)


if __name__ == "__main__":
    main()
