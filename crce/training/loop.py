"""The only training loop: a latent cache, the trained tensors, their optimiser, and a checkpoint."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from crce import bases
from crce.concepts.spec import ConceptSpec, resolve_conflicts
from crce.config import EraseConfig, ResolvedConfig, as_erased, check, config_from_dict, resolve_config
from crce.errors import CrceError
from crce.methods.base import TRAJECTORY, ClosedForm, Specs
from crce.methods.erased_weights import ErasedWeights
from crce.methods.losses import StepContext, are_finite, first_loss_scale
from crce.methods.registry import gradient_method_of, method_of
from crce.models.diffusion import Diffusion, NoisySample
from crce.models.memory import free_memory, gradient_checkpointing, is_out_of_memory
from crce.training import checkpoints
from crce.training.checkpoints import BrokenCheckpoint, Checkpoints
from crce.training.latent_cache import (
    LatentCache,
    own_groups,
    rng_of,
    sample_latents,
    shuffle_latents,
    trajectory_groups,
)

GROW_EVERY = 200  # steps after which the loss's scale in fp16 is doubled again

Concepts = ConceptSpec | Sequence[ConceptSpec]


@dataclass(frozen=True)
class Step:
    """One finished step of a phase: "bank" (filling the latent cache) or "train", which has losses by name.

    kept: the training step after which the run can be continued. note: what a person should know of this step.
    """

    phase: str
    number: int
    total: int
    losses: dict[str, float]
    _weights: Callable[[], ErasedWeights] = field(repr=False)
    kept: int = 0
    note: str = ""

    def weights(self) -> ErasedWeights:
        """The result so far, as a copy. Only valid until the next step is taken."""
        return self._weights()


class TrainState:
    """What training changes: fp32 tensors, Adam's moments, and the number of steps done.

    rows: terms through the U-Net at once, 0 for all; fewer once memory ran out. recompute: whether with gradient
    checkpointing. loss_scale: see `losses.first_loss_scale`.
    attributes: what is erased from each spec's target, where that is all that is erased (`EraseConfig.erase_from`).
    """

    def __init__(self, model: Diffusion, specs: Specs, config: ResolvedConfig):
        self.model, self.config, self.method = model, config, gradient_method_of(config)
        self.rows, self.recompute, self.loss_scale = config.microbatch_size, False, first_loss_scale(model.dtype)
        self.attributes = [spec.target if config.erase_from else "" for spec in specs]
        self.specs = tuple(as_erased(spec, config) for spec in specs)
        self.tensors = self.method.start(model, self.specs, config, self.method.trainable(model.unet))
        self.trained = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        # The fused one needs no memory beside the moments; there is none of it for every device.
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=config.lr, fused=model.device.type == "cuda")
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

    def shrink(self) -> bool:
        """Need less memory from now on: half the rows, at last one, then `recompute`. False if nothing is left."""
        if self.rows != 1:
            terms = len(self.method.all_terms(_context(self, noise_caches(self))))
            self.rows = max(1, min(self.rows or terms, terms) // 2)
            if terms > 1:
                return True
        before, self.recompute = self.recompute, True
        return not before

    def describe_shrunk(self) -> str:
        """For people, after `shrink`."""
        terms = "1 term" if self.rows == 1 else f"{self.rows} terms"
        how = ", with gradient checkpointing" if self.recompute else ""
        return f"Memory ran out in step {self.step}: from here on with {terms} at once{how}."

    def checkpoint(self, copied: bool) -> ErasedWeights:
        """Tensors, moments and step. No random state: every draw is seeded by its step (`rng_of`).

        copied: in main memory, so that training can go on while they are written.
        """
        tensors = dict(self.tensors)
        for name, tensor in self.trained.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[tensor].items()}
        if copied:
            tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        facts = {"step": self.step, "rows": self.rows, "recompute": int(self.recompute), "loss_scale": self.loss_scale}
        return ErasedWeights(tensors, {**self.info, **{key: str(value) for key, value in facts.items()}})

    @property
    def checkpoint_bytes(self) -> int:
        """Of a checkpoint: the tensors and the two moments of those that are trained."""
        return sum(t.nbytes for t in self.tensors.values()) + 2 * sum(t.nbytes for t in self.trained.values())

    def load(self, path: Path) -> None:
        """Raises CrceError if the checkpoint belongs to another spec or other settings, BrokenCheckpoint if it is
        damaged."""
        saved = checkpoints.read(path)
        saved.check_base(self.model, str(path))
        if _identity(saved.info) != _identity(self.info):
            raise CrceError(
                f"{path} was made with other terms or settings and cannot be continued. "
                "Resume with the same ones, or start a new run."
            )
        self.step = int(saved.info["step"])
        # What the earlier attempt learnt about memory; none of it changes the result beyond rounding.
        rows = [count for count in (int(saved.info.get("rows", 0)), self.rows) if count]
        self.rows, self.recompute = min(rows, default=0), saved.info.get("recompute") == "1"
        self.loss_scale = float(saved.info.get("loss_scale", self.loss_scale))
        for name, tensor in self.tensors.items():
            tensor.data.copy_(saved.tensors[name])
        for name, tensor in self.trained.items():
            # A concept whose first turn is still to come has no moments yet.
            if f"step/{name}" in saved.tensors:
                moments = {key: saved.tensors[f"{key}/{name}"].to(tensor.device) for key in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[tensor] = {"step": saved.tensors[f"step/{name}"].to(tensor.device), **moments}


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
    checkpoint: a file written every `config.checkpoint_every` steps and at the end, but a large one no more often than
    takes a tenth of the time; read if `resume`. Other than the settings may be the number of rows at once.
    Raises CrceError for too few terms, a checkpoint that does not fit, or a loss that is not finite; and until gone,
    for a base without a judge and a target that it does not know. BrokenCheckpoint for a damaged checkpoint.
    """
    specs, config = _resolve_specs(spec), resolve_config(config, model.base)
    bases.check_method(model.base, config.method, config.base_method)
    for each in specs:
        check(each, config)
    check_lengths(model, config)
    if config.closed_form:
        yield Step("train", 1, 1, {}, lambda: solve_closed_form(model, specs, config))
        return
    state, is_over = TrainState(model, specs, config), _make_end(model, specs, config)
    if resume and checkpoint and checkpoint.exists():
        try:
            state.load(checkpoint)
        except (LookupError, ValueError) as error:  # of an earlier version, without a checksum
            raise BrokenCheckpoint(f"{checkpoint} is damaged ({error}). Remove it and run again.") from None
    if is_over(state):
        yield Step("train", state.step, state.step, {}, state.result, state.step)
        return
    caches = yield from _fill_caches(state)
    kept = Checkpoints(checkpoint, config.checkpoint_every, state.step) if checkpoint else None
    with closing(kept) if kept else nullcontext():
        over = False
        while not over:
            before = state.rows, state.recompute
            losses = train_once(state, caches)
            note = "" if before == (state.rows, state.recompute) else state.describe_shrunk()
            over = is_over(state)
            if kept:
                _keep(state, kept, over)
            total = state.step if over else state.total
            yield Step("train", state.step, total, losses, state.result, kept.kept if kept else 0, note)


def _keep(state: TrainState, kept: Checkpoints, last: bool) -> None:
    """Writes a checkpoint if it is time for one, from a GPU in the background but for the last. Raises OSError."""
    kept.look(wait=last)
    if kept.due(state.step, last, state.checkpoint_bytes):
        beside = state.model.device.type == "cuda" and not last
        kept.write(state.step, state.checkpoint(copied=beside), beside)


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
    # How many rows go through the U-Net at once is a matter of memory, and when something is written one of the disk.
    config = config and replace(config, microbatch_size=0, checkpoint_every=1, preview_every=0)
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

    Where memory runs out, it goes on with fewer rows at once, at last with gradient checkpointing.
    Raises CrceError for a loss that is not finite, and what torch raises if even that is too much.
    """
    while True:
        losses = _find_gradients(state, caches)
        if losses is not None:
            break
        free_memory()
    state.optimizer.step()
    state.step += 1
    if state.loss_scale > 1 and state.step % GROW_EVERY == 0:
        state.loss_scale *= 2
    return losses


def _find_gradients(state: TrainState, caches: list[LatentCache]) -> dict[str, float] | None:
    """The losses, with their gradients in place; None if memory ran out, or a scaled gradient is not finite, and the
    state is changed so that another attempt may do better."""
    untrained = {name: tensor.clone() for name, tensor in state.tensors.items() if name not in state.trained}
    full: Exception | None = None
    losses: dict[str, float] = {}
    try:
        losses = _accumulate_gradients(state, caches)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # Without its trace, which holds on to all that the attempt had made.
        full = error.with_traceback(None)
    if full and not state.shrink():
        raise full
    if not full and (state.loss_scale == 1 or _unscale(state, losses)):
        _check_finite(losses, state)
        return losses
    state.loss_scale /= 1 if full else 2
    # Soft words, for one, that the failed attempt may have moved.
    for name, tensor in untrained.items():
        state.tensors[name].data.copy_(tensor)
    return None


def _accumulate_gradients(state: TrainState, caches: list[LatentCache]) -> dict[str, float]:
    """One attempt at a step: the losses, with their gradients, times the scale."""
    context = _context(state, caches)
    _set_rate(state)
    state.optimizer.zero_grad()
    losses: dict[str, float] = defaultdict(float)
    with gradient_checkpointing(state.model.unet) if state.recompute else nullcontext():
        for parts in state.method.losses_by_pass(context):
            # Backward after each pass: the memory held does not grow with the number of terms.
            first, *rest = parts.values()
            (sum(rest, first) * context.loss_scale).backward()
            for name, loss in parts.items():
                losses[name] += float(loss.detach())
    return dict(losses)


def _unscale(state: TrainState, losses: dict[str, float]) -> bool:
    """Divides the gradients by the loss's scale; False if something is not finite, perhaps because of the scale."""
    tensors = state.trained.values()
    if not are_finite(tensors) or not all(map(math.isfinite, losses.values())):
        return False
    for tensor in tensors:
        if tensor.grad is not None:
            tensor.grad /= state.loss_scale
    return True


def _context(state: TrainState, caches: list[LatentCache]) -> StepContext:
    turn, which = divmod(state.step, len(caches))
    spec, cache = state.specs[which], caches[which]
    given = state.model, spec, state.tensors
    sample = cache.latents.at(turn % len(cache.latents.x)).to(state.model.device)
    replaced, rng = state.method.replaced(*given), rng_of(state.config.seed, state.step)
    attached = partial(state.method.attached, *given)
    config = replace(state.config, microbatch_size=state.rows)
    return StepContext(
        state.model, spec, config, state.tensors, replaced, sample, rng, attached, cache.own, state.loss_scale,
        state.attributes[which],
    )  # fmt: skip


def _set_rate(state: TrainState) -> None:
    """The learning rate of this step, by the method's schedule."""
    factor = state.method.rate(state.step // len(state.specs), state.config.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * factor


def noise_caches(state: TrainState) -> list[LatentCache]:
    """Caches of one latent each, to try a step with."""
    noise = noise_sample(state.model, state.config)
    return [LatentCache(noise, dict.fromkeys(state.method.own_prompts(spec), noise)) for spec in state.specs]


def noise_sample(model: Diffusion, config: EraseConfig) -> NoisySample:
    """A latent of pure noise: the cost of a step does not depend on it."""
    x = model.noise([config.seed])
    return NoisySample(x, torch.full((1,), 500, device=model.device), x, x)


def _check_finite(losses: dict[str, float], state: TrainState) -> None:
    other = ", or in bf16 or fp32" if state.model.dtype == torch.float16 else ""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CrceError(
                f"The loss of the {name} became {loss} after step {state.step}. The last checkpoint is kept. "
                f"Start again with a lower learning rate{other}."
            )
