"""The only training loop: a bank of latents, the tuned weights, their optimiser, and a checkpoint."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from crce.concepts.spec import ConceptSpec, resolve_conflicts
from crce.config import EraseConfig, check, with_defaults
from crce.errors import CrceError
from crce.methods.base import Specs
from crce.methods.losses import StepContext
from crce.methods.registry import ClosedForm, method_of
from crce.models.diffusion import Diffusion, NoisySample
from crce.models.erased_weights import ErasedWeights
from crce.training.latent_cache import TRAJECTORY, _groups, rng_of, sample_latents, shuffled


@dataclass(frozen=True)
class Step:
    """One finished step of a phase: "bank" (sampling the latents) or "train", there with its losses by part.

    `delta` is the result so far: a copy, made when it is asked for.
    """

    phase: str
    number: int
    of: int
    losses: dict[str, float]
    _made: Callable[[], ErasedWeights]

    @property
    def delta(self) -> ErasedWeights:
        return self._made()


class TrainState:
    """What training changes: fp32 master tensors and Adam's moments."""

    def __init__(self, model: Diffusion, specs: Specs, config: EraseConfig):
        self.model, self.specs, self.config, self.method = model, specs, config, method_of(config)
        self.tensors = self.method.start(model, specs, config, self.method.trainable(model.unet))
        self.learning = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        self.optimizer = torch.optim.Adam(self.learning.values(), lr=config.lr)
        self.step = 0
        self.info = {**_info(model, specs, config), "kind": self.method.kind}

    def delta(self) -> ErasedWeights:
        copies = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return ErasedWeights(self.method.finish(self.model, self.specs, copies), self.info)

    def save(self, path: Path) -> None:
        """Tensors, moments and step in one file. No dice: every draw is seeded by its step (see `rng_of`)."""
        tensors = dict(self.tensors)
        for name, tensor in self.learning.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[tensor].items()}
        ErasedWeights(tensors, {**self.info, "step": str(self.step)}).save(path)

    def load(self, path: Path) -> None:
        """Raises CrceError if the checkpoint belongs to another spec or other settings."""
        saved = ErasedWeights.load(path)
        if any(saved.info.get(key) != value for key, value in self.info.items()):
            raise CrceError(
                f"{path} was made with other terms or settings and cannot be continued. "
                "Resume with the same ones, or start a new run."
            )
        self.step = int(saved.info["step"])
        for name, tensor in self.tensors.items():
            tensor.data.copy_(saved.tensors[name])
        for name, tensor in self.learning.items():
            # What was not trained on yet has none: a concept whose turn is still to come.
            state = {key: saved.tensors.get(f"{key}/{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if state["step"] is not None:
                moments = {key: value.to(tensor.device) for key, value in state.items() if key != "step"}
                self.optimizer.state[tensor] = {"step": state["step"], **moments}


def erase(
    model: Diffusion,
    spec: ConceptSpec | Sequence[ConceptSpec],
    config: EraseConfig,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Erases the target, or several, from a copy of the tuned weights, step by step; the model itself stays as it is.

    Several concepts take turns, `config.steps` each. checkpoint: a file written every `config.checkpoint_every`
    steps and at the end, and read when `resume`.
    Raises CrceError for too few terms, a checkpoint that does not fit, or a loss that is not finite.
    """
    specs = _several(spec)
    config = with_defaults(config, model.base)
    for each in specs:
        check(each, config)
    if isinstance(method_of(config), ClosedForm):
        yield Step("train", 1, 1, {}, lambda: solve_closed_form(model, spec, config))
        return
    yield from _trained(TrainState(model, specs, config), checkpoint, resume)


def _several(spec: ConceptSpec | Sequence[ConceptSpec]) -> Specs:
    return resolve_conflicts([spec] if isinstance(spec, ConceptSpec) else spec)


def solve_closed_form(
    model: Diffusion, spec: ConceptSpec | Sequence[ConceptSpec], config: EraseConfig
) -> ErasedWeights:
    """The delta of a closed form, which needs no steps."""
    specs, method = _several(spec), method_of(config)
    tensors = method.edit(model, specs, method.trainable(model.unet))
    return ErasedWeights(tensors, {**_info(model, specs, config), "kind": "weights"})


def _info(model: Diffusion, specs: Specs, config: EraseConfig) -> dict[str, str]:
    """Where a delta came from."""
    return {"base": model.base, "method": config.method, "target": ", ".join(s.target for s in specs),
            "digest": " ".join(s.digest for s in specs), "config": json.dumps(asdict(config))}  # fmt: skip


def _trained(tuned: TrainState, checkpoint: Path | None, resume: bool) -> Iterator[Step]:
    """The phases: the bank is sampled, then a step for each of its latents."""
    if resume and checkpoint and checkpoint.exists():
        tuned.load(checkpoint)
    of = tuned.config.steps * len(tuned.specs)
    if tuned.step == of:
        yield Step("train", of, of, {}, tuned.delta)
        return
    banks = yield from _banks(tuned)
    while tuned.step < of:
        losses = train_once(tuned, banks)
        tuned.step += 1
        if checkpoint and (tuned.step % tuned.config.checkpoint_every == 0 or tuned.step == of):
            tuned.save(checkpoint)
        yield Step("train", tuned.step, of, losses, tuned.delta)


def _banks(tuned: TrainState) -> Generator[Step, None, list[NoisySample]]:
    """A bank for each concept; yields a Step for each moment sampled. Where memory counts, the device is spared it."""
    banks, each = [], TRAJECTORY * len(_groups(tuned.config))
    place = "cpu" if tuned.config.rows else tuned.model.device
    for spec in tuned.specs:
        moments = []
        for moment in sample_latents(tuned.model, tuned.method.latents(spec), tuned.config):
            moments.append(moment.to(place))
            yield Step("bank", len(moments) + each * len(banks), each * len(tuned.specs), {}, tuned.delta)
        banks.append(shuffled(moments, tuned.config.seed))
    return banks


def train_once(tuned: TrainState, banks: list[NoisySample]) -> dict[str, float]:
    """One step of Adam for the concept whose turn it is; the losses by part."""
    turn, which = divmod(tuned.step, len(banks))
    spec, bank = tuned.specs[which], banks[which]
    asked = tuned.model, spec, tuned.tensors
    weights, adapter = tuned.method.weights(*asked), partial(tuned.method.adapter, *asked)
    moment, rng = bank.at(turn % len(bank.x)).to(tuned.model.device), rng_of(tuned.config.seed, tuned.step)
    draw = StepContext(tuned.model, spec, tuned.config, tuned.tensors, weights, moment, rng, adapter)
    tuned.optimizer.zero_grad()
    losses: dict[str, float] = defaultdict(float)
    for parts in tuned.method.losses_by_pass(draw):
        # Backward after each pass: what is held in memory does not grow with the number of terms.
        sum(parts.values()).backward()
        for name, loss in parts.items():
            losses[name] += float(loss.detach())
    _finite(losses, tuned.step)
    tuned.optimizer.step()
    return dict(losses)


def _finite(losses: dict[str, float], step: int) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CrceError(
                f"The loss of the {name} became {loss} after step {step}. The last checkpoint is kept. "
                "Start again with a lower learning rate."
            )
