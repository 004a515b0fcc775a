"""What a method is: which weights it changes, and how. The loop around it is `erase`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.methods.losses import LossTerm, StepContext, anchor, term_losses
from crce.models.diffusion import Diffusion

Specs = tuple[ConceptSpec, ...]
Tensors = dict[str, Tensor]


def copies(model: Diffusion, specs: Specs, config: EraseConfig, names: list[str]) -> Tensors:
    """fp32 masters of the weights themselves: a bf16 weight swallows an update of 1e-5."""
    parameters = dict(model.unet.named_parameters())
    return {name: parameters[name].detach().float().clone().requires_grad_() for name in names}


@dataclass(frozen=True)
class Method:
    """One that trains.

    trainable(unet): names of the weights that it tunes, or hangs something on.
    pulls(draw): pulls on predictions; all of a step go through the U-Net in one batch.
    losses(draw): losses of another kind, by part.
    goal(draw): where the target is pushed, and its corefs with it [1, C, H, W].
    latents(spec): the prompt on whose trajectories it trains.
    start(model, specs, config, names): the fp32 tensors, by name; those that require a gradient are tuned.
    weights(model, spec, tensors): what of the U-Net they replace while `spec` is trained on, by name.
    adapter(model, spec, tensors): hangs them on the U-Net instead, inside its context (see `adapters`).
    finish(model, specs, tensors): the tensors of the delta.
    kind: how the delta is applied (see `ErasedWeights.applied`).
    """

    trainable: Callable[[nn.Module], list[str]]
    pulls: Callable[[StepContext], list[LossTerm]] = lambda context: []
    losses: Callable[[StepContext], Tensors] = lambda context: {}
    goal: Callable[[StepContext], Tensor] = anchor
    latents: Callable[[ConceptSpec], str] = lambda spec: spec.target
    start: Callable[[Diffusion, Specs, EraseConfig, list[str]], Tensors] = copies
    weights: Callable[[Diffusion, ConceptSpec, Tensors], Tensors] = lambda model, spec, tensors: tensors
    adapter: Callable[[Diffusion, ConceptSpec, Tensors], AbstractContextManager] = lambda *_: nullcontext()
    finish: Callable[[Diffusion, Specs, Tensors], Tensors] = lambda model, specs, tensors: tensors
    kind: str = "weights"

    def losses_by_pass(self, context: StepContext) -> Iterator[Tensors]:
        """Scalars by part, for each pass through the U-Net: as many pulls at once as `config.rows` allows."""
        pulls, goal = self.loss_terms(context), self.goal(context)
        size = context.config.rows or len(pulls)
        for start in range(0, len(pulls), max(size, 1)):
            yield term_losses(context, pulls[start : start + size], goal)
        if own := self.losses(context):
            yield own


@dataclass(frozen=True)
class ClosedForm:
    """One that is solved at once: edit(model, specs, names) gives the tensors that trainable(unet) names, changed."""

    trainable: Callable[[nn.Module], list[str]]
    edit: Callable[[Diffusion, Specs, list[str]], Tensors]


def untouched(model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> Tensors:
    """An adapter replaces no weight."""
    return {}
