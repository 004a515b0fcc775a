"""Peak memory of tensors while training CRCE at SD v1.4's size in bf16, counted per operation on the CPU. A GPU's
allocator and kernels need slightly more.

Compares a step of ESD's public loop with a step of ours and a prediction of our latent cache (500 steps), including
the model's weights. One step is enough, because all steps need the same.
"""

import gc
import random
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.figures import Figure, make_parser, show
from benchmarks.loop import Reference
from benchmarks.sizes import sd_v1_4, spec
from crce import bases
from crce.config import EraseConfig, ResolvedConfig, resolve_config
from crce.models.diffusion import Diffusion
from crce.training.latent_cache import LatentCache, sample_latents
from crce.training.loop import TrainState, noise_sample, train_once

CONFIG = resolve_config(EraseConfig(steps=500, lr=1e-5), bases.SD_V1_4)
SECOND = 104  # a seed whose first choice among 50 latents is the second


class Peak(TorchDispatchMode):
    """Counts each tensor's storage from its creation until it is freed."""

    def __init__(self):
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.most = 0

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in self.live:
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.drop, key)

    def drop(self, key: int) -> None:
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)):
            self.add(tensor)
        return made


def main() -> None:
    show("memory", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    model = sd_v1_4("cpu")
    for part in model.networks:
        part.to(torch.bfloat16)
    model.dtype = torch.bfloat16
    reference = count_peak(model, lambda: run_reference(model))
    yield Figure("`crce`, ESD's loop", (reference,), unit="GiB")
    for name, rows in (("lean", 1), ("fast", 0)):
        config = replace(CONFIG, microbatch_size=rows)
        bank, step = (count_peak(model, partial(part, model, config)) for part in (sample_cache, run_step))
        note = f"{max(bank, step) / reference:.2f} times ESD's loop; cache {bank:.2f}, step {step:.2f}"
        yield Figure(f"`crce`, ours, {name}", (max(bank, step),), note, "GiB")


def run_reference(model: Diffusion) -> None:
    """One step of the reference, at its second latent: earlier sampling needs no more memory."""
    reference = Reference(model, spec(), CONFIG)
    reference.rng = random.Random(SECOND)
    reference.step()


def run_step(model: Diffusion, config: ResolvedConfig) -> None:
    """One step, with the whole cache if that is kept on the device."""
    cache = one = noise_sample(model, config)
    if not config.microbatch_size:
        cache = one.join([one] * config.steps)
    train_once(TrainState(model, (spec(),), config), [LatentCache(cache)])


def sample_cache(model: Diffusion, config: ResolvedConfig) -> None:
    """The first prediction for the cache, with the trained weights allocated."""
    tuned = TrainState(model, (spec(),), config)
    next(sample_latents(model, tuned.method.latent_prompt(spec()), config))


def count_peak(model: Diffusion, work: Callable[[], object]) -> float:
    """The peak in GiB, including the model's weights."""
    gc.collect()
    with Peak() as peak:
        for part in model.networks:
            for weight in part.parameters():
                peak.add(weight.data)
        work()
    return round(peak.most / 2**30, 3)


if __name__ == "__main__":
    main()
