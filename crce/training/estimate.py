"""What a run will cost, before it starts: one step of it is tried, or, where that takes long, only its shapes are."""

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from crce import bases
from crce.catalogue import WEIGHTS
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, ResolvedConfig, check, resolve_config
from crce.cost import Cost
from crce.methods.base import TRAJECTORY, Specs, trainable_copies
from crce.methods.losses import StepContext
from crce.methods.registry import gradient_method_of, method_of
from crce.models.diffusion import Diffusion
from crce.models.memory import free_memory, is_out_of_memory
from crce.training.latent_cache import LatentCache, count_trajectories, own_groups
from crce.training.loop import TrainState, check_lengths, noise_caches, noise_sample, train_once
from crce.training.saved_bytes import SavedBytes

# One forward pass of the U-Net, in weights × latent pixels. SD v1.4: 860 M × 64²; the default model: 12 M × 8².
CPU_WORK = 1e11
PICTURES_ROOM = 32 << 20  # bytes of disk for previews and the pictures of a report
FP32 = 4


@dataclass(frozen=True)
class Trial:
    """rows: prompts through the U-Net in one step. held: bytes that a step keeps for its backward pass, at most.

    seconds: of a step; None if no step was made. start: seconds before the first one.
    """

    rows: int
    held: int
    seconds: float | None = None
    start: float = 0.0


def estimate(model: Diffusion, specs: Specs | list[ConceptSpec], config: EraseConfig) -> Cost:
    """What the run will cost on the device where the model is. Raises CrceError for too few terms.

    Memory: the base; for each trained value a master copy, its gradient and Adam's two moments; the latent cache if it
    lies there; and what a step keeps for its backward pass. What a kernel needs for a moment is not counted.
    """
    specs, resolved = tuple(specs), resolve_config(config, model.base)
    bases.check_method(model.base, resolved.method, resolved.base_method)
    for spec in specs:
        check(spec, resolved)
    check_lengths(model, resolved)
    base, trained = _weight_bytes(model), FP32 * count_values(model, specs, resolved)
    disk = disk_bytes(model, specs, resolved)
    if resolved.closed_form:
        return Cost(None, base + trained, disk, 0, free_bytes(model))
    trial = _try_or_trace(model, specs, resolved)
    steps, latents = resolved.steps * len(specs), TRAJECTORY * sum(_count_all(resolved, spec) for spec in specs)
    on_device = not resolved.microbatch_size or model.device.type == "cpu"
    cache = on_device * latents * 4 * FP32 * math.prod(model.latent_shape)
    memory = base + 4 * trained + trial.held + cache
    seconds = None
    if trial.seconds is not None:
        cache_seconds = sum(_cache_seconds(model, _count_all(resolved, spec)) for spec in specs)
        seconds = round(trial.start + trial.seconds * steps + cache_seconds, 1)
    return Cost(seconds, memory, disk, trial.rows * steps + 2 * latents, free_bytes(model))


def free_bytes(model: Diffusion) -> int | None:
    """What a run may take of the device's memory: all that is free, and what the model and torch's cache hold of it.

    None where the system does not say.
    """
    if model.device.type == "cuda":
        return torch.cuda.mem_get_info(model.device)[0] + torch.cuda.memory_reserved(model.device)
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    available = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return available[0] + _weight_bytes(model) if available and model.device.type == "cpu" else None


def _try_or_trace(model: Diffusion, specs: Specs, config: ResolvedConfig) -> Trial:
    """A step that is made where it is quick and fits, or the shapes of one."""
    if is_quick(model):
        try:
            return try_steps(model, specs, config)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
    return trace_shapes(model, specs, config)


def is_quick(model: Diffusion) -> bool:
    """Whether one prompt through the U-Net takes less than seconds here: not for a large model on a CPU."""
    work = model.latent_shape[1] * model.latent_shape[2] * sum(p.numel() for p in model.unet.parameters())
    return model.device.type != "cpu" or work <= CPU_WORK


def time_picture(model: Diffusion) -> float:
    """Seconds that a picture with the base's own sampling takes here, from one of its predictions."""
    x, times = model.noise([0, 0]), torch.full((2,), 500, device=model.device)
    states = model.embed(["", ""])
    with torch.no_grad():
        if is_quick(model):
            model.predict(x, times, states)  # the first is slower
        return model.defaults.sample_steps * _time(model, lambda: model.predict(x, times, states))


def disk_bytes(model: Diffusion, specs: Specs, config: ResolvedConfig) -> int:
    """Bytes in fp32, at most: the result, pictures, and for a method that trains two checkpoints (values and Adam's two
    moments) while one replaces the other."""
    checkpoints = 0 if config.closed_form else 2 * 3
    return FP32 * count_values(model, specs, config) * (1 + checkpoints) + PICTURES_ROOM


def count_values(model: Diffusion, specs: Specs, config: ResolvedConfig) -> int:
    """How many values are trained: those of the weights, or those of an adapter beside them."""
    names = method_of(config).trainable(model.unet)
    if config.result == WEIGHTS:
        sizes = {name: p.numel() for name, p in model.unet.named_parameters()}
        return sum(sizes[name] for name in names)
    return sum(tensor.numel() for tensor in gradient_method_of(config).start(model, specs, config, names).values())


def reset_peak_memory(model: Diffusion) -> None:
    """Start a new measurement for `peak_memory`. The peak of a process (RSS) cannot be reset."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)


def peak_memory(model: Diffusion) -> tuple[int, str]:
    """The most bytes in use, and by whom: torch on the "device", or this "process" since it began."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device), "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def try_steps(model: Diffusion, specs: Specs, config: ResolvedConfig) -> Trial:
    """Make two steps of a run that is thrown away, and time the second."""
    began = time.perf_counter()
    state = TrainState(model, tuple(specs), config)
    start = _now(model) - began
    caches: list[LatentCache] = noise_caches(state)
    rows: list[int] = []
    saved = SavedBytes([*model.unet.parameters(), *state.tensors.values()])
    counter = model.unet.register_forward_pre_hook(lambda unet, inputs: rows.append(len(inputs[0])))
    with saved.counting():
        train_once(state, caches)
    counter.remove()
    return Trial(sum(rows), saved.peak, _time(model, lambda: train_once(state, caches)), start)


def trace_shapes(model: Diffusion, specs: Specs, config: ResolvedConfig) -> Trial:
    """The same from the shapes of one prediction, without computing it: for one row or all rows at once, with the
    weights themselves trained."""
    method, sample = gradient_method_of(config), noise_sample(model, config)
    terms = method.all_terms(StepContext(model, specs[0], config, {}, {}, sample, Random(config.seed)))
    states = [term.state for term in terms] or [model.embed([specs[0].target])[0]]
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        tensors = trainable_copies(model, method.trainable(model.unet))
        base = [*model.unet.parameters(), *map(fake.from_tensor, model.unet.parameters())]
        saved = SavedBytes([*base, *tensors.values()])
        context = StepContext(model, specs[0], config, tensors, tensors, sample, Random(config.seed))
        with saved.counting():
            kept = context.predict(states[: config.microbatch_size or None])  # noqa: F841  its graph is what is counted
    return Trial(len(states) + sum(term.held for term in terms), saved.peak)


def _weight_bytes(model: Diffusion) -> int:
    return sum(p.nbytes for part in model.networks for p in part.parameters())


def _count_all(config: ResolvedConfig, spec: ConceptSpec) -> int:
    """The trajectories of a concept's latent cache, those of the method's further prompts included."""
    own = own_groups(config, gradient_method_of(config).own_prompts(spec))
    return count_trajectories(config) + sum(len(group) for groups in own.values() for group in groups)


def _cache_seconds(model: Diffusion, trajectories: int) -> float:
    """Of one concept's latent cache, from the second of two of its predictions."""
    x = model.noise([0]).expand(2 * trajectories, -1, -1, -1)
    times, states = torch.full((len(x),), 500, device=model.device), model.embed([""]).expand(len(x), -1, -1)
    with torch.no_grad():
        model.predict(x, times, states)
        return TRAJECTORY * _time(model, lambda: model.predict(x, times, states))


def _time(model: Diffusion, work: Callable[[], object]) -> float:
    began = _now(model)
    work()
    return _now(model) - began


def _now(model: Diffusion) -> float:
    """The time once the device has done all that was asked of it."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
