"""The latent cache: the noisy latents x_t that a run trains on, sampled from the frozen model before it begins."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from crce.config import ResolvedConfig
from crce.methods.base import TRAJECTORY
from crce.models.diffusion import Diffusion, NoisySample

# Trajectories sampled at once when memory is short: they take less than the backward pass of one row (see
# benchmarks/memory.py).
MAX_TRAJECTORIES = 6


@dataclass(frozen=True)
class LatentCache:
    """latents: those of a concept's steps, in the order of use. own: those of further prompts, by prompt."""

    latents: NoisySample
    own: dict[str, NoisySample] = field(default_factory=dict)


def sample_latents(
    model: Diffusion, prompt: str, config: ResolvedConfig, groups: list[range] | None = None
) -> Iterator[NoisySample]:
    """Sample the latents of all steps at once: whole trajectories instead of ESD's fresh partial one per step.

    The guided pass already holds e_c and e_∅, so the anchors cost nothing.
    Yields a sample for each of the 50 timesteps, with latents [n, C, H, W] of the n = ⌈steps / 50⌉ trajectories;
    with a `config.microbatch_size`, 50 samples for each group of at most `MAX_TRAJECTORIES`.
    groups: other trajectories than these, by number (`own_groups`).
    """
    for group in groups or trajectory_groups(config):
        seeds = [rng_of(config.seed, -2 - i).getrandbits(63) for i in group]
        states = model.embed([prompt]).expand(len(group), -1, -1)
        for sample, _ in model.denoise(model.noise(seeds), states, TRAJECTORY, config.guidance):
            yield sample


def count_trajectories(config: ResolvedConfig) -> int:
    """How many trajectories of 50 latents the steps need; each latent is then used about once."""
    return math.ceil(config.steps / TRAJECTORY)


def trajectory_groups(config: ResolvedConfig) -> list[range]:
    """Which trajectories are sampled together."""
    return _split(range(count_trajectories(config)), config)


def own_groups(config: ResolvedConfig, prompts: list[str]) -> dict[str, list[range]]:
    """The trajectories of further prompts: together as many as the steps need, but at least one each. They have their
    own numbers, and so their own noise."""
    count = count_trajectories(config)
    each = math.ceil(count / max(len(prompts), 1))
    starts = range(count, count + each * len(prompts), each)
    return {p: _split(range(start, start + each), config) for p, start in zip(prompts, starts, strict=True)}


def _split(trajectories: range, config: ResolvedConfig) -> list[range]:
    size = MAX_TRAJECTORIES if config.microbatch_size else len(trajectories)
    return [trajectories[start : start + size] for start in range(0, len(trajectories), size)]


def shuffle_latents(samples: list[NoisySample], seed: int) -> NoisySample:
    """All latents in random order, so that each is used once before any is used again.

    They are sorted by time first, so that the order does not depend on how they were grouped.
    """
    cache = NoisySample.join(sorted(samples, key=lambda sample: -int(sample.t[0])))
    return cache.at(*rng_of(seed, -1).sample(range(len(cache.x)), len(cache.x)))


def rng_of(seed: int, step: int) -> Random:
    """The random numbers of one step. Seeded by the step, so a resumed run draws the same without any saved state."""
    return Random(f"{seed}/{step}")
