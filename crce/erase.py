"""The only training loop: a bank of latents, the tuned weights, their optimiser, and a checkpoint."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch

from crce.concepts import ConceptSpec
from crce.config import EraseConfig, check, with_defaults
from crce.delta import Delta
from crce.diffusion import Diffusion, Moment
from crce.errors import CrceError
from crce.methods import METHODS, ClosedForm
from crce.methods.pulls import Draw

# A trajectory of the bank: ESD's 50 DDIM steps.
TRAJECTORY = 50


@dataclass(frozen=True)
class Step:
    """One finished step of a phase: "bank" (sampling the latents) or "train", there with its losses by part.

    `delta` is the result so far: a copy, made when it is asked for.
    """

    phase: str
    number: int
    of: int
    losses: dict[str, float]
    _changed: Delta

    @property
    def delta(self) -> Delta:
        return Delta({n: w.detach().clone() for n, w in self._changed.tensors.items()}, self._changed.info)


class Tuned:
    """What training changes: fp32 master weights (a bf16 weight swallows an update of 1e-5) and Adam's moments."""

    def __init__(self, model: Diffusion, spec: ConceptSpec, config: EraseConfig):
        parameters = dict(model.unet.named_parameters())
        names = METHODS[config.method].trainable(model.unet)
        self.weights = {n: parameters[n].detach().float().clone().requires_grad_() for n in names}
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=config.lr)
        self.step = 0
        self.info = _info(model, spec, config)
        self.changed = Delta(self.weights, self.info)

    def save(self, path: Path) -> None:
        """Weights, moments and step in one file. No dice: every draw is seeded by its step (see `_dice`)."""
        tensors = dict(self.weights)
        for name, weight in self.weights.items():
            state = self.optimizer.state[weight]
            tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        Delta(tensors, {**self.info, "step": str(self.step)}).save(path)

    def load(self, path: Path) -> None:
        """Raises CrceError if the checkpoint belongs to another spec or other settings."""
        saved = Delta.load(path)
        if any(saved.info.get(key) != value for key, value in self.info.items()):
            raise CrceError(
                f"{path} was made with other terms or settings and cannot be continued. "
                "Resume with the same ones, or start a new run."
            )
        self.step = int(saved.info["step"])
        for name, weight in self.weights.items():
            weight.data.copy_(saved.tensors[name])
            moments = {k: saved.tensors[f"{k}/{name}"].to(weight.device) for k in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[weight] = {"step": torch.tensor(float(self.step)), **moments}


def erase(
    model: Diffusion, spec: ConceptSpec, config: EraseConfig, *, checkpoint: Path | None = None, resume: bool = False
) -> Iterator[Step]:
    """Erases spec.target from a copy of the tuned weights, step by step; the model itself stays as it is.

    checkpoint: a file written every `config.checkpoint_every` steps and at the end, and read when `resume`.
    Raises CrceError for too few terms, a checkpoint that does not fit, or a loss that is not finite.
    """
    config = with_defaults(config, model.base)
    check(spec, config)
    if isinstance(METHODS[config.method], ClosedForm):
        yield Step("train", 1, 1, {}, solved(model, spec, config))
        return
    tuned = Tuned(model, spec, config)
    if resume and checkpoint and checkpoint.exists():
        tuned.load(checkpoint)
    if tuned.step == config.steps:
        yield Step("train", config.steps, config.steps, {}, tuned.changed)
        return
    moments = []
    for moment in sample_bank(model, spec.target, config):
        moments.append(moment)
        yield Step("bank", len(moments), TRAJECTORY, {}, tuned.changed)
    bank = shuffled(moments, config.seed)
    while tuned.step < config.steps:
        losses = _train(model, spec, config, tuned, bank)
        tuned.step += 1
        if checkpoint and (tuned.step % config.checkpoint_every == 0 or tuned.step == config.steps):
            tuned.save(checkpoint)
        yield Step("train", tuned.step, config.steps, losses, tuned.changed)


def solved(model: Diffusion, spec: ConceptSpec, config: EraseConfig) -> Delta:
    """The delta of a closed form, which needs no steps."""
    method = METHODS[config.method]
    tensors = method.edit(model, spec, method.trainable(model.unet))
    return Delta(tensors, _info(model, spec, config))


def _info(model: Diffusion, spec: ConceptSpec, config: EraseConfig) -> dict[str, str]:
    """Where a delta came from."""
    return {"base": model.base, "method": config.method, "target": spec.target,
            "digest": spec.digest, "config": json.dumps(asdict(config))}  # fmt: skip


def _train(model: Diffusion, spec: ConceptSpec, config: EraseConfig, tuned: Tuned, bank: Moment) -> dict[str, float]:
    """One step of Adam; the losses by part."""
    moment = bank.at(tuned.step % len(bank.x))
    draw = Draw(model, spec, config, tuned.weights, moment, _dice(config.seed, tuned.step))
    parts = METHODS[config.method].losses(draw)
    losses = {name: float(loss.detach()) for name, loss in parts.items()}
    _finite(losses, tuned.step)
    tuned.optimizer.zero_grad()
    sum(parts.values()).backward()
    tuned.optimizer.step()
    return losses


def _finite(losses: dict[str, float], step: int) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CrceError(
                f"The loss of the {name} became {loss} after step {step}. The last checkpoint is kept. "
                "Start again with a lower learning rate."
            )


def sample_bank(model: Diffusion, prompt: str, config: EraseConfig) -> Iterator[Moment]:
    """Latents of the frozen model for all steps, sampled at once: whole trajectories in place of ESD's
    fresh partial one per step. Its guided pass already holds e_c and e_∅, so the anchors cost nothing.

    Yields 50 Moments of ⌈steps / 50⌉ latents.
    """
    trajectories = math.ceil(config.steps / TRAJECTORY)
    seeds = [_dice(config.seed, -2 - i).getrandbits(63) for i in range(trajectories)]
    states = model.embed([prompt]).expand(trajectories, -1, -1)
    for moment in model.denoise(model.noise(seeds), states, TRAJECTORY, config.guidance):
        if isinstance(moment, Moment):
            yield moment


def shuffled(moments: list[Moment], seed: int) -> Moment:
    """The bank: one Moment of all latents in random order, so that each is used once before any comes again."""
    bank = Moment.join(moments)
    return bank.at(*_dice(seed, -1).sample(range(len(bank.x)), len(bank.x)))


def _dice(seed: int, step: int) -> Random:
    """The dice of one step. Seeded by the step, so a resumed run throws the same without any saved state."""
    return Random(f"{seed}/{step}")
