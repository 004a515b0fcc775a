"""SalUn: only the weights that matter for the concept learn to draw another one (Fan et al., ICLR 2024)."""

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.base import TRAJECTORY, GradientMethod, Specs, Tensors, trainable_copies
from crce.methods.ca import anchor_concept
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term
from crce.methods.parameters import everything
from crce.models.diffusion import Diffusion

ALPHA = 0.5


class SalUn(GradientMethod):
    """L = ‖ε_θ(x_t, c, t) − ε(x_t, c', t)‖² + α ‖ε_θ(x_t, r, t) − ε(x_t, r, t)‖², α = 0.5.

    c', the new label, is the run's anchor, else the training retain of highest certainty, r one drawn in each step.
    The latent cache takes the place of the pictures of both, and the frozen model's predictions that of the noise.
    """

    def trainable(self, unet: nn.Module) -> list[str]:
        return everything(unet)

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """Copies of the weights, of which only the salient half gets a gradient: |∂L_f/∂w| above the median of all.

        The others stay as they are to the last bit, for Adam moves nothing that never had a gradient.
        """
        tensors = trainable_copies(model, names)
        for spec in specs:
            _add_forgetting_gradient(model, spec, config, tensors)
        slopes = {name: _gradient(tensor).abs() for name, tensor in tensors.items()}
        median = torch.cat([slope.flatten() for slope in slopes.values()]).median()
        for name, tensor in tensors.items():
            tensor.grad = None
            tensor.register_hook(lambda grad, mask=slopes[name] > median: grad * mask)
        return tensors

    def goal(self, context: StepContext) -> Tensor:
        """ε(x_t, c', t) [1, C, H, W] of the frozen model."""
        return context.predict_frozen(context.config.anchor or anchor_concept(context.spec))

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        kept = context.rng.choice(context.spec.train_retains).text
        target = erase_term("target", context.embed(context.spec.target))
        return [target, preserve_term("retains", context.embed(kept), ALPHA)]


def _gradient(tensor: Tensor) -> Tensor:
    """Zeros for a tensor that the loss does not reach."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _add_forgetting_gradient(model: Diffusion, spec: ConceptSpec, config: ResolvedConfig, tensors: Tensors) -> None:
    """Adds ∂L_f/∂w to the gradients, L_f the loss of drawing the target: ‖ε_∅ + g (ε_c − ε_∅) − ε‖².

    ε is the noise between x_t and the picture x_0 that one trajectory ends in; of a model that predicts v, it is the v
    between them.
    """
    states = model.embed([spec.target])
    trajectory = list(model.denoise(model.noise([config.seed]), states, TRAJECTORY, config.guidance))
    _, x_0 = trajectory[-1]
    scheduler = DDIMScheduler.from_config(model.schedule)
    alphas = scheduler.alphas_cumprod.to(x_0)
    both = torch.cat([model.embed([""]), states])
    for sample, _ in trajectory:
        noise = (sample.x - alphas[sample.t].sqrt() * x_0) / (1 - alphas[sample.t]).sqrt()
        if scheduler.config.prediction_type == "v_prediction":
            noise = scheduler.get_velocity(x_0, noise, sample.t)
        e_0, e_c = model.predict(torch.cat([sample.x, sample.x]), sample.t.repeat(2), both, tensors).chunk(2)
        F.mse_loss(e_0 + config.guidance * (e_c - e_0), noise).backward()
