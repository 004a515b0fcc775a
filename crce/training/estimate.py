"""What a run will cost, before it starts: a step of it is tried, or, where that takes long, only its shapes are."""

import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, check, with_defaults
from crce.cost import Cost
from crce.methods.base import copies
from crce.methods.losses import StepContext
from crce.methods.registry import ClosedForm, method_of
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.latent_cache import TRAJECTORY
from crce.training.loop import TrainState, train_once

# One forward pass of the U-Net, in weights × latent pixels. SD v1.4: 860 M × 64²; the default model: 12 M × 8².
CPU_WORK = 1e11
PICTURES_ROOM = 32 << 20  # bytes of disk for previews and the pictures of a report
FP32 = 4


@dataclass(frozen=True)
class Trial:
    """rows: through the U-Net in one step. held: bytes that a step keeps for its backward pass, at most.

    seconds: of a step; None where it was not made. start: seconds before the first one.
    """

    rows: int
    held: int
    seconds: float | None = None
    start: float = 0.0


def estimate(model: Diffusion, specs: Sequence[ConceptSpec], config: EraseConfig) -> Cost:
    """What the run will cost with the model where it is. Raises CrceError for too few terms.

    Memory: the base, of each tuned value a master, its gradient and Adam's two moments, the bank if it lies there, and
    what a step keeps for its backward pass. What a kernel needs for a moment is not in it.
    """
    specs, config = tuple(specs), with_defaults(config, model.base)
    for spec in specs:
        check(spec, config)
    weights, tuned = _weights(model), FP32 * values(model, specs, config)
    if isinstance(method_of(config), ClosedForm):
        return Cost(None, weights + tuned, disk(model, specs, config), 0)
    trial = tried(model, specs, config) if quick(model) else shaped(model, specs, config)
    steps, trajectories = config.steps * len(specs), math.ceil(config.steps / TRAJECTORY) * len(specs)
    bank = trajectories * TRAJECTORY
    there = not config.rows or model.device.type == "cpu"
    memory = weights + 4 * tuned + trial.held + there * bank * 4 * FP32 * math.prod(model.latent_shape)
    seconds = None
    if trial.seconds is not None:
        seconds = round(trial.start + trial.seconds * steps + len(specs) * _bank_seconds(model, config), 1)
    return Cost(seconds, memory, disk(model, specs, config), trial.rows * steps + 2 * bank)


def quick(model: Diffusion) -> bool:
    """Whether a row takes less than seconds here: not one of a large model on a CPU."""
    work = model.latent_shape[1] * model.latent_shape[2] * sum(p.numel() for p in model.unet.parameters())
    return model.device.type != "cpu" or work <= CPU_WORK


def disk(model: Diffusion, specs: Sequence[ConceptSpec], config: EraseConfig) -> int:
    """Bytes in fp32, at most: the delta, pictures, and of what trains two checkpoints (values and Adam's two moments)
    while one replaces the other."""
    checkpoints = 0 if isinstance(method_of(config), ClosedForm) else 2 * 3
    return FP32 * values(model, specs, config) * (1 + checkpoints) + PICTURES_ROOM


def values(model: Diffusion, specs: Sequence[ConceptSpec], config: EraseConfig) -> int:
    """How many are tuned: those of the weights, or those of an adapter beside them."""
    method, sizes = method_of(config), {name: p.numel() for name, p in model.unet.named_parameters()}
    names = method.trainable(model.unet)
    if isinstance(method, ClosedForm) or method.kind == "weights":
        return sum(sizes[name] for name in names)
    return sum(tensor.numel() for tensor in method.start(model, tuple(specs), config, names).values())


def forget_peak(model: Diffusion) -> None:
    """What the device had in use before does not count for `peak`. A process cannot forget its own."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)


def peak(model: Diffusion) -> tuple[int, str]:
    """The most bytes that were in use, and by whom: torch on the device, or this process since it began, with all
    libraries."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device), "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


def tried(model: Diffusion, specs: Sequence[ConceptSpec], config: EraseConfig) -> Trial:
    """Makes two steps of a run that is thrown away, and times the second."""
    began = time.perf_counter()
    tuned = TrainState(model, tuple(specs), config)
    start = _now(model) - began
    banks, rows = [moment(model, config)] * len(specs), []
    held = Held([*model.unet.parameters(), *tuned.tensors.values()])
    count = model.unet.register_forward_pre_hook(lambda unet, inputs: rows.append(len(inputs[0])))
    with held.counting():
        train_once(tuned, banks)
    count.remove()
    return Trial(sum(rows), held.most, _clocked(model, lambda: train_once(tuned, banks)), start)


def shaped(model: Diffusion, specs: Sequence[ConceptSpec], config: EraseConfig) -> Trial:
    """The same from the shapes of one prediction alone, nothing being computed: for a row or all rows at once, with
    the weights themselves tuned."""
    method, here = method_of(config), moment(model, config)
    pulls = method.loss_terms(StepContext(model, specs[0], config, {}, {}, here, Random(config.seed)))
    states = [pull.state for pull in pulls] or [model.embed([specs[0].target])[0]]
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        tensors = copies(model, tuple(specs), config, method.trainable(model.unet))
        base = [*model.unet.parameters(), *map(fake.from_tensor, model.unet.parameters())]
        held = Held([*base, *tensors.values()])
        draw = StepContext(model, specs[0], config, tensors, tensors, here, Random(config.seed))
        with held.counting():
            kept = draw.predict(states[: config.rows or None])  # noqa: F841  its graph holds what is counted
    return Trial(len(states) + sum(pull.held for pull in pulls), held.most)


class Held:
    """Counts the bytes that autograd keeps for backward passes, each storage once and as long as it is kept."""

    def __init__(self, known: Iterable[Tensor]):
        """known: tensors that are counted elsewhere."""
        # With the tensors, for an address that is free is given away again.
        self._known = {_storage(tensor): tensor for tensor in known}
        self._kept: Counter[int] = Counter()
        self.now = self.most = 0

    def counting(self) -> AbstractContextManager:
        return saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)

    def add(self, tensor: Tensor, times: int) -> None:
        key = _storage(tensor)
        before, self._kept[key] = self._kept[key], self._kept[key] + times
        if key not in self._known and not (before and self._kept[key]):
            self.now += times * tensor.untyped_storage().nbytes()
            self.most = max(self.most, self.now)


class _Kept:
    """A tensor in the hands of autograd, until it lets go."""

    def __init__(self, held: Held, tensor: Tensor):
        self.held, self.tensor = held, tensor
        held.add(tensor, 1)

    def __del__(self):
        self.held.add(self.tensor, -1)


def _storage(tensor: Tensor) -> int:
    """Which memory it is in; views share theirs, and one that is only a shape has one too."""
    return tensor.untyped_storage()._cdata


def _weights(model: Diffusion) -> int:
    parts = (model.unet, model.text_encoder, model.vae)
    return sum(p.nbytes for part in parts for p in part.parameters())


def moment(model: Diffusion, config: EraseConfig) -> NoisySample:
    """A latent of pure noise: what a step costs does not depend on it."""
    x = model.noise([config.seed])
    return NoisySample(x, torch.full((1,), 500, device=model.device), x, x)


def _bank_seconds(model: Diffusion, config: EraseConfig) -> float:
    """Of one concept's trajectories, by the second of two of their predictions."""
    x = model.noise([config.seed]).expand(2 * math.ceil(config.steps / TRAJECTORY), -1, -1, -1)
    times, states = torch.full((len(x),), 500, device=model.device), model.embed([""]).expand(len(x), -1, -1)
    with torch.no_grad():
        model.predict(x, times, states)
        return TRAJECTORY * _clocked(model, lambda: model.predict(x, times, states))


def _clocked(model: Diffusion, work: Callable[[], object]) -> float:
    began = _now(model)
    work()
    return _now(model) - began


def _now(model: Diffusion) -> float:
    """When all that was asked of the device is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
