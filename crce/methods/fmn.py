"""Forget-Me-Not: the picture stops attending to the concept's words (Zhang et al., CVPR 2024 workshops)."""

import torch
from torch import nn

from crce.methods.attention import attention_maps, concept_tokens
from crce.methods.base import GradientMethod, Tensors
from crce.methods.losses import StepContext
from crce.methods.parameters import queries_keys


class ForgetMeNot(GradientMethod):
    """L = ‖A‖₂ over all A of every cross-attention layer, head and pixel at the concept's tokens and, as in the public
    settings, at the end of the text and its paddings, for these carry the concept too; no loss on noise.

    What differs: the latent cache takes the place of the concept's pictures, the bare name that of the prompt, and
    there is no textual inversion before. Trained are Q and K of the cross-attention, of which A is made; the public
    code trains the whole U-Net, or all of the cross-attention.
    """

    def trainable(self, unet: nn.Module) -> list[str]:
        return queries_keys(unet)

    def losses(self, context: StepContext) -> Tensors:
        target = context.spec.target
        with attention_maps(context.model.unet) as maps:
            context.predict([context.embed(target)])
        where = concept_tokens(context.model, target, target)
        return {"target": torch.cat([found[..., where].float().flatten() for found in maps]).norm()}
