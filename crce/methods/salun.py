"""SalUn: only the weights that matter for the concept learn to draw another one (Fan et al., ICLR 2024)."""

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.methods.base import Specs, Tensors, copies
from crce.methods.ca import anchor_concept
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term
from crce.models.diffusion import Diffusion

ALPHA = 0.5
TRAJECTORY = 50


def salun(context: StepContext) -> list[LossTerm]:
    """L = ‖ε_θ(x_t, c, t) − ε(x_t, c', t)‖² + α ‖ε_θ(x_t, r, t) − ε(x_t, r, t)‖², α = 0.5.

    c', the new label, is the training retain of highest certainty, r one drawn in each step. The bank takes the place
    of the pictures of both, and the frozen model's predictions that of the noise.
    """
    spec, embed = context.spec, context.model.embed
    kept = context.rng.choice(spec.train_retains).text
    return [erase_term("target", embed([spec.target])[0]), preserve_term("retains", embed([kept])[0], ALPHA)]


def relabelled(context: StepContext) -> Tensor:
    """ε(x_t, c', t) [1, C, H, W] of the frozen model."""
    with torch.no_grad():
        return context.predict([context.model.embed([anchor_concept(context.spec)])[0]], tuned=False)


def masked(model: Diffusion, specs: Specs, config: EraseConfig, names: list[str]) -> Tensors:
    """Copies of the weights, of which only the salient half gets a gradient: those whose |∂L_f/∂w| is above the median
    of all. The others stay as they are to the last bit, for Adam moves nothing that never had a gradient."""
    tensors = copies(model, specs, config, names)
    for spec in specs:
        _forget(model, spec, config, tensors)
    slopes = {name: tensor.grad.abs() for name, tensor in tensors.items()}
    median = torch.cat([slope.flatten() for slope in slopes.values()]).median()
    for name, tensor in tensors.items():
        tensor.grad = None
        tensor.register_hook(lambda grad, mask=slopes[name] > median: grad * mask)
    return tensors


def _forget(model: Diffusion, spec: ConceptSpec, config: EraseConfig, tensors: Tensors) -> None:
    """Adds ∂L_f/∂w to the gradients, L_f the loss of drawing the target: ‖ε_∅ + g (ε_c − ε_∅) − ε‖², where ε is the
    noise between x_t and the picture x_0 that one trajectory ends in."""
    states = model.embed([spec.target])
    *moments, x_0 = model.denoise(model.noise([config.seed]), states, TRAJECTORY, config.guidance)
    kept = DDIMScheduler.from_config(model.schedule).alphas_cumprod.to(x_0)
    both = torch.cat([model.embed([""]), states])
    for m in moments:
        noise = (m.x - kept[m.t].sqrt() * x_0) / (1 - kept[m.t]).sqrt()
        e_0, e_c = model.predict(torch.cat([m.x, m.x]), m.t.repeat(2), both, tensors).chunk(2)
        F.mse_loss(e_0 + config.guidance * (e_c - e_0), noise).backward()
