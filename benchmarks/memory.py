"""Bytes that tensors take at most while CRCE is trained, at SD v1.4's size in bf16: counted operation by operation on
the CPU. A GPU's allocator and kernels take a little more.

A step of ESD's public loop, a step of ours, and a prediction of our bank (500 steps), the model's weights in all of
them. What does not grow with time is enough: every other step takes the same.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.figures import Figure, options, show
from benchmarks.loop import Reference
from benchmarks.sizes import sd_v1_4, spec
from crce.config import EraseConfig
from crce.models.diffusion import Diffusion
from crce.training.estimate import noise_sample
from crce.training.latent_cache import sample_latents
from crce.training.loop import TrainState, train_once

CONFIG = EraseConfig(steps=500, lr=1e-5)


class Peak(TorchDispatchMode):
    """Counts each tensor's storage from when an operation makes it until nobody holds it."""

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
    show("memory", __doc__, measured(), options(__doc__).parse_args().keep)


def measured() -> Iterator[Figure]:
    model = sd_v1_4("cpu")
    for part in (model.unet, model.text_encoder, model.vae):
        part.to(torch.bfloat16)
    model.dtype = torch.bfloat16
    reference = counted(model, lambda: fresh(model))
    yield Figure("`crce`, ESD's loop", (reference,), unit="GiB")
    for name, rows in (("lean", 1), ("fast", 0)):
        config = replace(CONFIG, microbatch_size=rows)
        bank, step = (counted(model, partial(part, model, config)) for part in (banked, trained))
        note = f"{max(bank, step) / reference:.2f} of it; the bank {bank:.2f}, a step {step:.2f}"
        yield Figure(f"`crce`, ours, {name}", (max(bank, step),), note, "GiB")


def fresh(model: Diffusion) -> None:
    """One step of the reference, at the second of its latents: the sampling before it takes no more."""
    reference = Reference(model, spec(), CONFIG)
    reference.dice.randrange = lambda of: 1
    reference.step()


def trained(model: Diffusion, config: EraseConfig) -> None:
    """One step, beside a whole bank where that is on the device."""
    bank = one = noise_sample(model, config)
    if not config.microbatch_size:
        bank = one.join([one] * config.steps)
    train_once(TrainState(model, (spec(),), config), [bank])


def banked(model: Diffusion, config: EraseConfig) -> None:
    """A bank's first prediction, beside what is tuned."""
    tuned = TrainState(model, (spec(),), config)
    next(sample_latents(model, tuned.method.latents(spec()), config))


def counted(model: Diffusion, work: Callable[[], object]) -> float:
    """GiB at most, with the weights of the model."""
    gc.collect()
    with Peak() as peak:
        for part in (model.unet, model.text_encoder, model.vae):
            for weight in part.parameters():
                peak.add(weight.data)
        work()
    return round(peak.most / 2**30, 3)


if __name__ == "__main__":
    main()
