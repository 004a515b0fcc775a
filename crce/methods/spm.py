"""SPM: a one-dimensional membrane beside every layer of the transformers (Lyu et al., CVPR 2024).

    y = W x + γ · up(down(x)),  rank 1
    L = ‖ε_{θ+m}(x_t, c, t) − anchor(x_t, c, t)‖² + λ · mean_z ‖ε_{θ+m}(x_t, z, t) − ε_θ(x_t, z, t)‖²

The second sum is the latent anchoring: z are random states, rather unlike the target, where nothing may change. γ is
the facilitated transport, 1 in training (see `adapters.gate`). x_t comes from the frozen bank; the paper samples it
anew with the membrane on. Each concept of a run has its own membrane, with its own gate.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.methods.base import Method, Specs, Tensors, untouched
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term
from crce.methods.parameters import transformers
from crce.models import adapters
from crce.models.diffusion import Diffusion

ANCHORS = 4
STRENGTH = 1000


def start(model: Diffusion, specs: Specs, config: EraseConfig, names: list[str]) -> Tensors:
    """A membrane for each concept."""
    layers = [name.removesuffix(".weight") for name in names]
    rng = torch.Generator().manual_seed(config.seed)
    made = {spec.target: adapters.fresh(model.unet, layers, adapters.MEMBRANE, rng) for spec in specs}
    return {
        f"{target}/{name}": tensor.to(model.device).requires_grad_()
        for target, own in made.items()
        for name, tensor in own.items()
    }


def membrane(model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager:
    """Of the concept that is trained on."""
    own = {name: tensor for name, tensor in tensors.items() if name.rpartition("/")[0] == spec.target}
    return adapters.membranes(model, own)


def spm(context: StepContext) -> list[LossTerm]:
    target = context.model.embed([context.spec.target])[0]
    rng = torch.Generator().manual_seed(context.rng.getrandbits(63))
    held = [preserve_term("anchoring", _anchor(target, rng), STRENGTH / ANCHORS) for _ in range(ANCHORS)]
    return [erase_term("target", target), *held]


def _anchor(target: Tensor, rng: torch.Generator) -> Tensor:
    """A random state [L, d] of about the target's length, the less likely the more it is like it."""
    while True:
        noise = torch.randn(target.shape, generator=rng).to(target)
        if _chance(rng) < 1 - F.cosine_similarity(noise.flatten(), target.flatten(), dim=0).item():
            return noise / noise.norm() * target.norm() * (0.8 + 0.4 * _chance(rng))


def _chance(rng: torch.Generator) -> float:
    return torch.rand((), generator=rng).item()


SPM = Method(transformers, pulls=spm, start=start, weights=untouched, adapter=membrane, kind="spm")
