"""Forget-Me-Not: the picture stops attending to the concept's words (Zhang et al., CVPR 2024 workshops)."""

import torch
from torch import Tensor

from crce.methods.attention import attention_maps, positions
from crce.methods.losses import StepContext
from crce.models.diffusion import Diffusion


def fmn(context: StepContext) -> dict[str, Tensor]:
    """L = ‖A‖₂ over all A of every cross-attention layer, head and pixel at the concept's tokens and, as in the public
    settings, at every end of text, for these carry the concept too; no loss on noise.

    The bank takes the place of the concept's pictures, the bare name that of the prompt, and there is no textual
    inversion before. Trained are Q and K of the cross-attention, of which A is made; the public code trains the whole
    U-Net, or all of the cross-attention.
    """
    with attention_maps(context.model.unet) as maps:
        context.predict([context.model.embed([context.spec.target])[0]])
    where = tokens(context.model, context.spec.target)
    return {"target": torch.cat([found[..., where].float().flatten() for found in maps]).norm()}


def tokens(model: Diffusion, target: str) -> list[int]:
    """Positions of the name and of the ends of text; where the model pads with these, of all but the start."""
    ids = model.tokenizer(target, padding="max_length").input_ids
    ends = [i for i, token in enumerate(ids) if token == model.tokenizer.eos_token_id]
    return [*positions(model, target, target), *ends]
