"""What a run will cost, before it starts: one step of it is tried, or, where that takes long, only its shapes are."""

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.latent_cache import count_trajectories
from crce.training.loop import TrainState, check_lengths, train_once
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
        return Cost(None, base + trained, disk, 0)
    trial = (try_steps if is_quick(model) else trace_shapes)(model, specs, resolved)
    steps, latents = resolved.steps * len(specs), count_trajectories(resolved) * TRAJECTORY * len(specs)
    on_device = not resolved.microbatch_size or model.device.type == "cpu"
    cache = on_device * latents * 4 * FP32 * math.prod(model.latent_shape)
    memory = base + 4 * trained + trial.held + cache
    seconds = None
    if trial.seconds is not None:
        cache_seconds = len(specs) * _cache_seconds(model, resolved)
        seconds = round(trial.start + trial.seconds * steps + cache_seconds, 1)
    return Cost(seconds, memory, disk, trial.rows * steps + 2 * latents)


def is_quick(model: Diffusion) -> bool:
    """Whether one prompt through the U-Net takes less than seconds here: not for a large model on a CPU."""
    work = model.latent_shape[1] * model.latent_shape[2] * sum(p.numel() for p in model.unet.parameters())
    return model.device.type != "cpu" or work <= CPU_WORK


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
    caches, rows = [noise_sample(model, config)] * len(specs), []
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


def noise_sample(model: Diffusion, config: EraseConfig) -> NoisySample:
    """A latent of pure noise: the cost of a step does not depend on it."""
    x = model.noise([config.seed])
    return NoisySample(x, torch.full((1,), 500, device=model.device), x, x)


def _weight_bytes(model: Diffusion) -> int:
    return sum(p.nbytes for part in model.networks for p in part.parameters())


def _cache_seconds(model: Diffusion, config: ResolvedConfig) -> float:
    """Of one concept's latent cache, from the second of two of its predictions."""
    x = model.noise([config.seed]).expand(2 * count_trajectories(config), -1, -1, -1)
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
