"""The losses of the ESD / CRCE / RealEra family: each a list of weighted terms on the tuned model's predictions."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.models.diffusion import Diffusion, NoisySample


@dataclass(frozen=True)
class StepContext:
    """What a method gets in one step.

    tensors: what is trained, by name. weights: what of the U-Net they replace (`GradientMethod.replaced`).
    sample: one latent x_t with both predictions of the frozen model. rng: seeded by the step.
    attached: attaches the adapters (`GradientMethod.attached`). own: the latents of further prompts, by prompt
    (`GradientMethod.own_prompts`).
    loss_scale: what a loss is multiplied with before its backward pass, and its gradients are divided by.
    attribute: what is erased, where it is an attribute of the spec's target (`EraseConfig.erase_from`).
    """

    model: Diffusion
    spec: ConceptSpec
    config: ResolvedConfig
    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]
    sample: NoisySample
    rng: Random
    attached: Callable[[], AbstractContextManager[Any]] = nullcontext
    own: Mapping[str, NoisySample] = field(default_factory=dict)
    loss_scale: float = 1.0
    attribute: str = ""

    def embed(self, text: str) -> Tensor:
        """The text's states [L, d]."""
        return self.model.embed([text])[0]

    def predict(self, states: list[Tensor], tuned: bool = True) -> Tensor:
        """ε [n, C, H, W] of the tuned or the frozen model for each state [L, d] at this step's latent; [0] for none."""
        if not states:
            return torch.empty(0)
        n = len(states)
        x, t = self.sample.x.expand(n, -1, -1, -1), self.sample.t.expand(n)
        with self.attached() if tuned else nullcontext():
            return self.model.predict(x, t, torch.stack(states), self.weights if tuned else None)

    @torch.no_grad()
    def predict_frozen(self, text: str) -> Tensor:
        """ε [1, C, H, W] of the frozen model for the text at this step's latent."""
        return self.predict([self.embed(text)], tuned=False)


@dataclass(frozen=True)
class LossTerm:
    """weight · MSE between ε_θ(x_t, state, t) and the goal, or, if held, the frozen model's own prediction.

    name: under which the loss is summed and shown. state: text states [L, d].
    """

    name: str
    state: Tensor
    held: bool
    weight: float


def first_loss_scale(dtype: torch.dtype) -> float:
    """With which training begins. The gradient of a mean over 16,384 latent values lies at the lower end of what fp16
    can hold, 6e-8, and vanishes on its way through the U-Net unless the loss is scaled; a power of two rounds nothing.
    """
    return 2.0**16 if dtype == torch.float16 else 1.0


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no gradient of these tensors is infinite or not a number."""
    return all(bool(tensor.grad.isfinite().all()) for tensor in tensors if tensor.grad is not None)


def erase_term(name: str, state: Tensor, weight: float = 1.0) -> LossTerm:
    """Push the prediction for `state` [L, d] to the method's goal."""
    return LossTerm(name, state, False, weight)


def preserve_term(name: str, state: Tensor, weight: float = 1.0) -> LossTerm:
    """Hold the prediction for `state` [L, d] where the frozen model has it."""
    return LossTerm(name, state, True, weight)


def anchor(context: StepContext) -> Tensor:
    """Where the target c goes [1, C, H, W], in predictions of the frozen model at x_t (ESD eq. 1, in the paper's
    convention of η).

        e_∅ − η (e_c − e_∅)     its opposite
        e_a                     with an anchor a: drawn as a; η has no part in it
        e_f − η (e_c − e_∅)     of the concept f that c, an attribute, is erased from: ESD's `erase_from`

    Each is a sum whose coefficients add up to 1, so it is the same point whether the model predicts ε or v: at one x_t
    and t, v = (ε − √(1−ᾱ) x_t) / √ᾱ is affine in ε.
    """
    sample, config = context.sample, context.config
    if config.anchor is not None:
        return context.predict_frozen(config.anchor)
    if context.attribute:  # then the latents, and e_c with them, are those of f
        return sample.e_c - config.eta * (context.predict_frozen(context.attribute) - sample.e_0)
    return sample.e_0 - config.eta * (sample.e_c - sample.e_0)


def term_losses(context: StepContext, terms: list[LossTerm], goal: Tensor) -> dict[str, Tensor]:
    """The weighted losses of the terms, summed by name; all go through the U-Net in one batch.

    goal: where the erased terms are pushed to [1, C, H, W].
    """
    # The frozen predictions first: the tuned ones hold much memory until their backward pass.
    with torch.no_grad():
        held = iter(context.predict([term.state for term in terms if term.held], tuned=False))
    predicted = context.predict([term.state for term in terms])
    losses: dict[str, Tensor] = {}
    for term, e in zip(terms, predicted, strict=True):
        loss = term.weight * F.mse_loss(e, next(held) if term.held else goal[0])
        losses[term.name] = losses[term.name] + loss if term.name in losses else loss
    return losses
