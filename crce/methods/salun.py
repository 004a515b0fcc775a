"""SalUn: only the weights that matter for the concept learn to draw another one (Fan et al., ICLR 2024)."""

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.base import TRAJECTORY, GradientMethod, Specs, Tensors, trainable_copies
from crce.methods.ca import anchor_concept
from crce.methods.losses import LossTerm, StepContext, are_finite, erase_term, first_loss_scale
from crce.methods.parameters import everything
from crce.models.diffusion import Diffusion
from crce.models.memory import gradient_checkpointing

ALPHA = 0.5
MASK_GUIDANCE = 8.5  # in the public code's form, (1 + w) ε_c − w ε_∅, w is 7.5


class SalUn(GradientMethod):
    """L = ‖ε_θ(x_t, c, t) − ε(x_t, c', t)‖² + α ‖ε_θ(y_t, r, t) − ε(y_t, r, t)‖², α = 0.5.

    c', the new label, is the run's anchor, else the training retain of highest certainty, r one drawn in each step, x_t
    a latent of the target and y_t one of r's own.

    What differs: the latent cache takes the place of the pictures of both, and the frozen model's predictions that of
    the noise and of the predictions of the network in training; a step has one latent of each instead of eight; the
    mask is made of one trajectory instead of 800 pictures. Published are 500 steps at 1e-5, of eight latents each.
    """

    def trainable(self, unet: nn.Module) -> list[str]:
        return everything(unet)

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """Copies of the weights, of which only the salient half gets a gradient: |∂L_f/∂w| above the median of all.

        The others stay as they are to the last bit, for Adam moves nothing that never had a gradient.
        """
        tensors = trainable_copies(model, names)
        # Two predictions at once, and nothing less: so that it needs no more memory than a step of the training.
        with gradient_checkpointing(model.unet):
            _find_forgetting_gradient(model, specs, config, tensors)
        slopes = {name: _gradient(tensor).abs() for name, tensor in tensors.items()}
        median = torch.cat([slope.flatten() for slope in slopes.values()]).median()
        for name, tensor in tensors.items():
            tensor.grad = None
            tensor.register_hook(lambda grad, mask=slopes[name] > median: grad * mask)
        return tensors

    def goal(self, context: StepContext) -> Tensor:
        """ε(x_t, c', t) [1, C, H, W] of the frozen model."""
        return context.predict_frozen(context.config.anchor or anchor_concept(context.spec))

    def own_prompts(self, spec: ConceptSpec) -> list[str]:
        return [term.text for term in spec.train_retains]

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        return [erase_term("target", context.embed(context.spec.target))]

    def losses(self, context: StepContext) -> Tensors:
        """The retain's, on one of its own latents."""
        kept = context.rng.choice(self.own_prompts(context.spec))
        cache, model = context.own[kept], context.model
        sample = cache.at(context.rng.randrange(len(cache.x))).to(model.device)
        e = model.predict(sample.x, sample.t, model.embed([kept]), context.weights)
        return {"retains": ALPHA * F.mse_loss(e, sample.e_c)}


def _gradient(tensor: Tensor) -> Tensor:
    """Zeros for a tensor that the loss does not reach."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _find_forgetting_gradient(model: Diffusion, specs: Specs, config: ResolvedConfig, tensors: Tensors) -> None:
    """The sum of ∂L_f/∂w over the concepts as the tensors' gradients, times a scale that has no effect on the median:
    the largest with which all are finite."""
    scale = first_loss_scale(model.dtype)
    while True:
        for spec in specs:
            _add_forgetting_gradient(model, spec, config, tensors, scale)
        if scale <= 1 or are_finite(tensors.values()):
            return
        scale /= 2
        for tensor in tensors.values():
            tensor.grad = None


def _add_forgetting_gradient(
    model: Diffusion, spec: ConceptSpec, config: ResolvedConfig, tensors: Tensors, scale: float
) -> None:
    """Adds scale · ∂L_f/∂w to the gradients, L_f the loss of drawing the target: ‖ε_∅ + g (ε_c − ε_∅) − ε‖², g = 8.5.

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
        (F.mse_loss(e_0 + MASK_GUIDANCE * (e_c - e_0), noise) * scale).backward()
