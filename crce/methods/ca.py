"""Concept Ablation: the target is drawn as an anchor concept is (Kumari et al., ICCV 2023)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.methods.attention import cross_attention_layers
from crce.methods.base import Tensors
from crce.methods.esd import Esd
from crce.methods.losses import StepContext
from crce.models.diffusion import Diffusion


@dataclass(frozen=True)
class ConceptAblation(Esd):
    """L = ‖ε_θ(x_t, c, t) − ε(x_t, c*, t)‖² on latents x_t of the anchor c*.

    It is ESD's one term, on other latents and with another goal. As in the public code the mark at the start of the
    text gives K and V no gradient: every prompt has it. What differs: the latent cache takes the place of the 1000
    pictures of the anchor and the anchor's name that of 200 prompts; where the paper's ε is the network in training
    without a gradient, ours is the frozen one, which the cache holds; and a step has one latent instead of four.

    anchor: c*; None means the training retain of highest certainty.
    """

    anchor: str | None = None

    def attached(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager[None]:
        return detached_start(model.unet)

    def latent_prompt(self, spec: ConceptSpec) -> str:
        return self.anchor or anchor_concept(spec)

    def goal(self, context: StepContext) -> Tensor:
        """ε(x_t, c*, t) [1, C, H, W]."""
        return context.sample.e_c


def anchor_concept(spec: ConceptSpec) -> str:
    """What the target turns into: the training retain of highest certainty, near but different."""
    return spec.train_retains[0].text


@contextmanager
def detached_start(unet: nn.Module) -> Iterator[None]:
    """Inside, K and V of the first text token have their values, but pass no gradient to the weights."""

    def detach(layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        return torch.cat([y[:, :1].detach(), y[:, 1:]], dim=1)

    seen = [part for layer in cross_attention_layers(unet).values() for part in (layer.to_k, layer.to_v)]
    hooks = [part.register_forward_hook(detach) for part in seen]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
