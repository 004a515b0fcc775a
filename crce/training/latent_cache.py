import math
from collections.abc import Iterator
from random import Random

from crce.config import EraseConfig
from crce.models.diffusion import Diffusion, NoisySample

# A trajectory of the bank: ESD's 50 DDIM steps.
TRAJECTORY = 50


# Trajectories sampled at once where memory counts: what these take is less than one row's backward pass (see
# benchmarks/memory.py).
LEAN = 6


def sample_latents(model: Diffusion, prompt: str, config: EraseConfig) -> Iterator[NoisySample]:
    """Latents of the frozen model for all steps, sampled at once: whole trajectories in place of ESD's
    fresh partial one per step. Its guided pass already holds e_c and e_∅, so the anchors cost nothing.

    Yields 50 Moments of ⌈steps / 50⌉ latents, or where `config.rows` saves memory, of a few of them after another.
    """
    for group in _groups(config):
        seeds = [rng_of(config.seed, -2 - i).getrandbits(63) for i in group]
        states = model.embed([prompt]).expand(len(group), -1, -1)
        for moment in model.denoise(model.noise(seeds), states, TRAJECTORY, config.guidance):
            if isinstance(moment, NoisySample):
                yield moment


def _groups(config: EraseConfig) -> list[range]:
    """Which trajectories of a bank are sampled together."""
    of = math.ceil(config.steps / TRAJECTORY)
    size = LEAN if config.rows else of
    return [range(start, min(start + size, of)) for start in range(0, of, size)]


def shuffled(moments: list[NoisySample], seed: int) -> NoisySample:
    """The bank: one Moment of all latents in random order, so that each is used once before any comes again.

    By time first, so that the order is the same however they were sampled.
    """
    bank = NoisySample.join(sorted(moments, key=lambda moment: -int(moment.t[0])))
    return bank.at(*rng_of(seed, -1).sample(range(len(bank.x)), len(bank.x)))


def rng_of(seed: int, step: int) -> Random:
    """The dice of one step. Seeded by the step, so a resumed run throws the same without any saved state."""
    return Random(f"{seed}/{step}")
