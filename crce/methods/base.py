"""What a method is: the weights it trains and its loss, or a closed form. The loop around it is `training.loop`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.losses import LossTerm, StepContext, anchor, term_losses
from crce.models.diffusion import Diffusion
from crce.models.weights import Tensors, replace_weights

# The frozen model's 50 DDIM steps, of which the training latents are made (ESD).
TRAJECTORY = 50

Specs = tuple[ConceptSpec, ...]


def trainable_copies(model: Diffusion, names: list[str]) -> Tensors:
    """Trainable fp32 copies of the named weights: a bf16 weight loses an update of 1e-5."""
    return {name: weight.clone().requires_grad_() for name, weight in model.masters(names).items()}


class Method(ABC):
    """One way to erase a concept."""

    @abstractmethod
    def trainable(self, unet: nn.Module) -> list[str]:
        """Names of the weights that it changes, or attaches its adapters to."""

    def apply(self, model: Diffusion, tensors: Tensors, strength: float = 1.0) -> AbstractContextManager[object]:
        """Inside, the model draws with the method's result, scaled by `strength`.

        Raises CrceError if a tensor does not fit the model.
        """
        return replace_weights(model, tensors, strength)


class ClosedForm(Method):
    """A method in closed form: one step, no training."""

    @abstractmethod
    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        """The named weights, changed: in fp32, each in its own shape."""


def no_terms(context: StepContext) -> list[LossTerm]:
    return []


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method that trains. A subclass overrides `loss_terms` or `losses`, and what else differs from ESD.

    extra_terms: further terms of the loss, of the same family (`crce.Crce`).
    """

    extra_terms: Callable[[StepContext], list[LossTerm]] = field(default=no_terms, kw_only=True)

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        """Terms on the model's predictions; all terms of a step go through the U-Net in one batch."""
        return []

    def losses(self, context: StepContext) -> Tensors:
        """Scalar losses of another kind, by name."""
        return {}

    def goal(self, context: StepContext) -> Tensor:
        """Where the predictions of the erased terms are pushed to [1, C, H, W]."""
        return anchor(context)

    def latent_prompt(self, spec: ConceptSpec) -> str:
        """The prompt on whose trajectories the method trains."""
        return spec.target

    def rate(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by in this step of a concept, 0 … steps − 1."""
        return 1.0

    def own_prompts(self, spec: ConceptSpec) -> list[str]:
        """Further prompts, whose own trajectories the method trains on too (`StepContext.own`)."""
        return []

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """The fp32 tensors that training begins with, by name; those that require a gradient are trained."""
        return trainable_copies(model, names)

    def replaced(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> Tensors:
        """The weights by name that the U-Net has instead of its own while this concept is trained."""
        return tensors

    def attached(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager[object]:
        """Inside, the U-Net has this concept's adapters."""
        return nullcontext()

    def finish(self, model: Diffusion, specs: Specs, tensors: Tensors) -> Tensors:
        """The result by name, made of the trained tensors, which it leaves as they are."""
        return tensors

    def all_terms(self, context: StepContext) -> list[LossTerm]:
        return [*self.loss_terms(context), *self.extra_terms(context)]

    def losses_by_pass(self, context: StepContext) -> Iterator[Tensors]:
        """Scalar losses by name for each pass through the U-Net, of at most `config.microbatch_size` terms."""
        terms, goal = self.all_terms(context), self.goal(context)
        size = context.config.microbatch_size or len(terms)
        for start in range(0, len(terms), max(size, 1)):
            yield term_losses(context, terms[start : start + size], goal)
        if own := self.losses(context):
            yield own
