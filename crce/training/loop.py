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
from crce.config import EraseConfig, ResolvedConfig, check, config_from_dict, resolve_config
from crce.errors import CrceError
from crce.methods.base import TRAJECTORY, ClosedForm, Specs
from crce.methods.erased_weights import ErasedWeights
from crce.methods.losses import StepContext
from crce.methods.registry import gradient_method_of, method_of
from crce.models.diffusion import Diffusion, NoisySample
from crce.training.latent_cache import (
    LatentCache,
    own_groups,
    rng_of,
    sample_latents,
    shuffle_latents,
    trajectory_groups,
)

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
    """What training changes: fp32 tensors, Adam's moments, and the number of steps done."""

    def __init__(self, model: Diffusion, specs: Specs, config: ResolvedConfig):
        self.model, self.specs, self.config, self.method = model, specs, config, gradient_method_of(config)
        self.tensors = self.method.start(model, specs, config, self.method.trainable(model.unet))
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
        info = {**self.info, "steps": str(self.step)}
        return ErasedWeights(self.method.finish(self.model, self.specs, copies), info)

    def save(self, path: Path) -> None:
        """Write tensors, moments and step to one file. No random state: every draw is seeded by its step (`rng_of`)."""
        tensors = dict(self.tensors)
        for name, tensor in self.trained.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[tensor].items()}
        ErasedWeights(tensors, {**self.info, "step": str(self.step)}).save(path)

    def load(self, path: Path) -> None:
        """Raises CrceError if the checkpoint belongs to another spec or other settings."""
        saved = ErasedWeights.load(path)
        saved.check_base(self.model, str(path))
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
    With `config.until_gone` the training may end early: the total of the last step is then its number.
    checkpoint: a file written every `config.checkpoint_every` steps and at the end, and read if `resume`.
    Raises CrceError for too few terms, a checkpoint that does not fit, or a loss that is not finite; and until gone,
    for a base without a judge and a target that it does not know.
    """
    specs, config = _resolve_specs(spec), resolve_config(config, model.base)
    for each in specs:
        check(each, config)
    if config.closed_form:
        yield Step("train", 1, 1, {}, lambda: solve_closed_form(model, specs, config))
        return
    state, is_over = TrainState(model, specs, config), _make_end(model, specs, config)
    if resume and checkpoint and checkpoint.exists():
        state.load(checkpoint)
    if is_over(state):
        yield Step("train", state.step, state.step, {}, state.result)
        return
    caches = yield from _fill_caches(state)
    over = False
    while not over:
        losses = train_once(state, caches)
        over = is_over(state)
        if checkpoint and (state.step % config.checkpoint_every == 0 or over):
            state.save(checkpoint)
        yield Step("train", state.step, state.step if over else state.total, losses, state.result)


def _make_end(model: Diffusion, specs: Specs, config: ResolvedConfig) -> Callable[[TrainState], bool]:
    """Whether the training is over: after all steps, or until gone, at a look that hardly sees the concepts.

    It depends on the state alone, so a resumed run ends at the same step.
    """
    if not config.until_gone:
        return lambda state: state.step == state.total
    from crce.evaluation.until_gone import EVERY, choose_questions, is_gone
    from crce.judges.embedded import EmbeddedJudge

    bases.require_judge(model.base)
    judge = EmbeddedJudge.load(model.base)
    for spec in specs:
        choose_questions(model, judge, spec)
    between = EVERY * len(specs)

    def is_over(state: TrainState) -> bool:
        look = state.step > 0 and state.step % between == 0
        return state.step == state.total or (look and is_gone(model, judge, specs, state.result()))

    return is_over


def solve_closed_form(model: Diffusion, spec: Concepts, config: EraseConfig) -> ErasedWeights:
    """The result of a closed form, which needs no steps. Raises CrceError for a method that trains."""
    specs, resolved = _resolve_specs(spec), resolve_config(config, model.base)
    method = method_of(resolved)
    if not isinstance(method, ClosedForm):
        raise CrceError(f"{config.method!r} is trained, not solved at once. Start a run instead.")
    tensors = method.solve(model, specs, method.trainable(model.unet))
    return ErasedWeights(tensors, _info(model, specs, resolved))


def preview(model: Diffusion, spec: Concepts) -> ErasedWeights:
    """The instant edit, a first look in seconds: CRCE-UCE, the corefs and retains in one closed form."""
    return solve_closed_form(model, spec, EraseConfig("crce-uce"))


def _resolve_specs(spec: Concepts) -> Specs:
    return resolve_conflicts([spec] if isinstance(spec, ConceptSpec) else spec)


def _info(model: Diffusion, specs: Specs, config: ResolvedConfig) -> dict[str, str]:
    """Where erased weights came from."""
    return {
        "base": model.base,
        "base_digest": model.digest,
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


def _fill_caches(state: TrainState) -> Generator[Step, None, list[LatentCache]]:
    """A latent cache for each concept; yields a step for each sample, and keeps the device free if memory counts."""
    config, done, caches = state.config, 0, []
    plans = [_plan_cache(state, spec) for spec in state.specs]
    total = TRAJECTORY * sum(len(groups) for plan in plans for _, groups in plan)
    place = "cpu" if config.microbatch_size else state.model.device
    for plan in plans:
        filled: list[list[NoisySample]] = []
        for prompt, groups in plan:
            filled.append([])
            for sample in sample_latents(state.model, prompt, config, groups):
                filled[-1].append(sample.to(place))
                done += 1
                yield Step("bank", done, total, {}, state.result)
        first, *others = (shuffle_latents(samples, config.seed) for samples in filled)
        caches.append(LatentCache(first, {prompt: own for (prompt, _), own in zip(plan[1:], others, strict=True)}))
    return caches


def _plan_cache(state: TrainState, spec: ConceptSpec) -> list[tuple[str, list[range]]]:
    """The prompts of a concept's cache with their trajectories: first that of the steps, then the others."""
    main = state.method.latent_prompt(spec), trajectory_groups(state.config)
    return [main, *own_groups(state.config, state.method.own_prompts(spec)).items()]


def train_once(state: TrainState, caches: list[LatentCache]) -> dict[str, float]:
    """Take one step of Adam for the concept whose turn it is; returns the losses by name.

    Raises CrceError for a loss that is not finite.
    """
    context = _context(state, caches)
    _set_rate(state)
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


def _context(state: TrainState, caches: list[LatentCache]) -> StepContext:
    turn, which = divmod(state.step, len(caches))
    spec, cache = state.specs[which], caches[which]
    given = state.model, spec, state.tensors
    sample = cache.latents.at(turn % len(cache.latents.x)).to(state.model.device)
    replaced, rng = state.method.replaced(*given), rng_of(state.config.seed, state.step)
    attached = partial(state.method.attached, *given)
    return StepContext(state.model, spec, state.config, state.tensors, replaced, sample, rng, attached, cache.own)


def _set_rate(state: TrainState) -> None:
    """The learning rate of this step, by the method's schedule."""
    factor = state.method.rate(state.step // len(state.specs), state.config.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * factor


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CrceError(
                f"The loss of the {name} became {loss} after step {step}. The last checkpoint is kept. "
                "Start again with a lower learning rate."
            )
