"""The only training loop: a latent cache, the trained tensors, their optimiser, and a checkpoint."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from crce import bases
from crce.concepts.spec import ConceptSpec, resolve_conflicts
from crce.config import EraseConfig, ResolvedConfig, as_erased, check, config_from_dict, resolve_config
from crce.errors import CrceError
from crce.methods.base import TRAJECTORY, ClosedForm, Specs
from crce.methods.erased_weights import ErasedWeights
from crce.methods.losses import StepContext
from crce.methods.registry import gradient_method_of, method_of
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.latent_cache import rng_of, sample_latents, shuffle_latents, trajectory_groups

Concepts = ConceptSpec | Sequence[ConceptSpec]


@dataclass(frozen=True)
class Step:
    """One finished step of a phase: "bank" (filling the latent cache) or "train", which has losses by name."""

    phase: str
    number: int
    total: int
    losses: dict[str, float]
    _weights: Callable[[], ErasedWeights] = field(repr=False)

    def weights(self) -> ErasedWeights:
        """The result so far, as a copy. Only valid until the next step is taken."""
        return self._weights()


class TrainState:
    """What training changes: fp32 tensors, Adam's moments, and the number of steps done.

    attributes: what is erased from each spec's target, where that is all that is erased (`EraseConfig.erase_from`).
    """

    def __init__(self, model: Diffusion, specs: Specs, config: ResolvedConfig):
        self.model, self.config, self.method = model, config, gradient_method_of(config)
        self.attributes = [spec.target if config.erase_from else "" for spec in specs]
        self.specs = tuple(as_erased(spec, config) for spec in specs)
        self.tensors = self.method.start(model, self.specs, config, self.method.trainable(model.unet))
        self.trained = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=config.lr)
        self.step = 0
        self.info = _info(model, specs, config)

    @property
    def total(self) -> int:
        """Steps of all concepts."""
        return self.config.steps * len(self.specs)

    def result(self) -> ErasedWeights:
        """The result so far, as a copy."""
        copies = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return ErasedWeights(self.method.finish(self.model, self.specs, copies), self.info)

    def save(self, path: Path) -> None:
        """Write tensors, moments and step to one file. No random state: every draw is seeded by its step (`rng_of`)."""
        tensors = dict(self.tensors)
        for name, tensor in self.trained.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[tensor].items()}
        ErasedWeights(tensors, {**self.info, "step": str(self.step)}).save(path)

    def load(self, path: Path) -> None:
        """Raises CrceError if the checkpoint belongs to another spec or other settings."""
        saved = ErasedWeights.load(path)
        if _identity(saved.info) != _identity(self.info):
            raise CrceError(
                f"{path} was made with other terms or settings and cannot be continued. "
                "Resume with the same ones, or start a new run."
            )
        self.step = int(saved.info["step"])
        for name, tensor in self.tensors.items():
            tensor.data.copy_(saved.tensors[name])
        for name, tensor in self.trained.items():
            # A concept whose first turn is still to come has no moments yet.
            if f"step/{name}" in saved.tensors:
                moments = {key: saved.tensors[f"{key}/{name}"].to(tensor.device) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[tensor] = {"step": saved.tensors[f"step/{name}"], **moments}


def progress_bar(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, shown as a bar on stderr while they are taken."""
    from tqdm.auto import tqdm

    with tqdm(unit="step") as bar:
        for step in steps:
            if bar.desc != f"{step.phase}: ":
                bar.reset(step.total)
                bar.set_description(step.phase)
            bar.update(step.number - bar.n)
            yield step


def erase(
    model: Diffusion,
    spec: Concepts,
    config: EraseConfig | None = None,
    *,
    progress: Callable[[Iterable[Step]], Iterable[Step]] | None = progress_bar,
) -> ErasedWeights:
    """Erase a concept, or several in one run, and return the result; the model itself stays as it is.

    config: the settings; without them CRCE with the base model's preset.
    progress: wraps the steps while they are taken, as `tqdm` does; None shows nothing.
    Raises what `erase_steps` raises.
    """
    steps = erase_steps(model, spec, config or EraseConfig())
    for step in progress(steps) if progress else steps:
        last = step
    return last.weights()


def erase_steps(
    model: Diffusion,
    spec: Concepts,
    config: EraseConfig,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Iterator[Step]:
    """Erase step by step, in copies of the trained weights; the model itself stays as it is.

    Several concepts take turns, `config.steps` each. Nothing happens, and nothing is checked, before the first step.
    checkpoint: a file written every `config.checkpoint_every` steps and at the end, and read if `resume`.
    Raises CrceError for too few terms, a checkpoint that does not fit, or a loss that is not finite.
    """
    specs, config = _resolve_specs(spec), resolve_config(config, model.base)
    bases.check_method(model.base, config.method, config.base_method)
    for each in specs:
        check(each, config)
    check_lengths(model, config)
    if config.closed_form:
        yield Step("train", 1, 1, {}, lambda: solve_closed_form(model, specs, config))
        return
    state = TrainState(model, specs, config)
    if resume and checkpoint and checkpoint.exists():
        state.load(checkpoint)
    if state.step == state.total:
        yield Step("train", state.total, state.total, {}, state.result)
        return
    caches = yield from _fill_caches(state)
    while state.step < state.total:
        losses = train_once(state, caches)
        if checkpoint and (state.step % config.checkpoint_every == 0 or state.step == state.total):
            state.save(checkpoint)
        yield Step("train", state.step, state.total, losses, state.result)


def solve_closed_form(model: Diffusion, spec: Concepts, config: EraseConfig) -> ErasedWeights:
    """The result of a closed form, which needs no steps. Raises CrceError for a method that trains."""
    specs, method = _resolve_specs(spec), method_of(config)
    if not isinstance(method, ClosedForm):
        raise CrceError(f"{config.method!r} is trained, not solved at once. Start a run instead.")
    tensors = method.solve(model, specs, method.trainable(model.unet))
    return ErasedWeights(tensors, _info(model, specs, resolve_config(config, model.base)))


def preview(model: Diffusion, spec: ConceptSpec, anchor: str | None = None) -> ErasedWeights:
    """The instant edit, a first look in seconds: CRCE-UCE, the corefs and retains in one closed form.

    anchor: what the target is drawn as instead. Raises CrceError for one that is erased itself or too long.
    """
    config = EraseConfig("crce-uce", anchor=anchor)
    check(spec, config)
    check_lengths(model, config)
    return solve_closed_form(model, spec, config)


def check_lengths(model: Diffusion, config: EraseConfig) -> None:
    """Raises CrceError for an anchor, or a concept to erase from, that is longer than the base reads."""
    if config.phrases:
        model.embed(list(config.phrases.values()))


def _resolve_specs(spec: Concepts) -> Specs:
    return resolve_conflicts([spec] if isinstance(spec, ConceptSpec) else spec)


def _info(model: Diffusion, specs: Specs, config: ResolvedConfig) -> dict[str, str]:
    """Where erased weights came from."""
    return {
        "base": model.base,
        "method": config.method,
        "target": ", ".join(spec.target for spec in specs),
        "digest": " ".join(spec.digest for spec in specs),
        "config": json.dumps(asdict(config)),
        "kind": config.result.kind,
    }


def _identity(info: dict[str, str]) -> tuple[object, ...]:
    """What must be equal to continue a checkpoint. Settings are compared as values: a file may use old names."""
    config = config_from_dict(json.loads(info["config"])) if "config" in info else None
    return config, *(info.get(key) for key in ("base", "method", "target", "digest", "kind"))


def _fill_caches(state: TrainState) -> Generator[Step, None, list[NoisySample]]:
    """A latent cache for each concept; yields a step for each sample, and keeps the device free if memory counts."""
    caches: list[NoisySample] = []
    per_concept = TRAJECTORY * len(trajectory_groups(state.config))
    place = "cpu" if state.config.microbatch_size else state.model.device
    for spec in state.specs:
        samples: list[NoisySample] = []
        for sample in sample_latents(state.model, state.method.latent_prompt(spec), state.config):
            samples.append(sample.to(place))
            done = len(samples) + per_concept * len(caches)
            yield Step("bank", done, per_concept * len(state.specs), {}, state.result)
        caches.append(shuffle_latents(samples, state.config.seed))
    return caches


def train_once(state: TrainState, caches: list[NoisySample]) -> dict[str, float]:
    """Take one step of Adam for the concept whose turn it is; returns the losses by name.

    Raises CrceError for a loss that is not finite.
    """
    context = _context(state, caches)
    state.optimizer.zero_grad()
    losses: dict[str, float] = defaultdict(float)
    for parts in state.method.losses_by_pass(context):
        # Backward after each pass: the memory held does not grow with the number of terms.
        first, *rest = parts.values()
        sum(rest, first).backward()
        for name, loss in parts.items():
            losses[name] += float(loss.detach())
    _check_finite(losses, state.step)
    state.optimizer.step()
    state.step += 1
    return dict(losses)


def _context(state: TrainState, caches: list[NoisySample]) -> StepContext:
    turn, which = divmod(state.step, len(caches))
    spec, cache = state.specs[which], caches[which]
    given = state.model, spec, state.tensors
    sample = cache.at(turn % len(cache.x)).to(state.model.device)
    replaced, rng = state.method.replaced(*given), rng_of(state.config.seed, state.step)
    attached = partial(state.method.attached, *given)
    attribute = state.attributes[which]
    return StepContext(state.model, spec, state.config, state.tensors, replaced, sample, rng, attached, attribute)


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CrceError(
                f"The loss of the {name} became {loss} after step {step}. The last checkpoint is kept. "
                "Start again with a lower learning rate."
            )
