"""SPM: a one-dimensional adapter beside every layer of the transformers (Lyu et al., CVPR 2024).

    y = W x + γ · up(down(x)),  rank 1
    L = ‖ε_{θ+m}(x_t, c, t) − anchor(x_t, c, t)‖² + λ · mean_z ‖ε_{θ+m}(x_t, z, t) − ε_θ(x_t, z, t)‖²

The second sum is the latent anchoring: z are random states, rather unlike the target, where nothing may change. γ is
the facilitated transport, 1 in training (see `gate`). The learning rate rises over the first sixth of the steps and
falls in three cosines, as published. Each concept of a run has its own adapter, with its own gate: tensors by
`{target}/{layer}.down`, or with a sense `{target}<tab>{sense}/{layer}.down`; no name has a tab.

What differs: x_t comes from the frozen latent cache of 50 steps, where the public code samples it anew with the adapter
on, in 30; Adam in fp32 without weight decay, where it has AdamW in 8 bits. Published are 3000 steps; the default model
has its own preset.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from math import cos, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.base import GradientMethod, Specs, Tensors
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term
from crce.methods.parameters import transformers
from crce.models.adapters import Form, Shapes, attach, init_adapters
from crce.models.diffusion import Diffusion

ANCHORS = 4
STRENGTH = 1000
WARM_UP = 1 / 6  # of the steps: 500 of 3000
CYCLES = 3


class Spm(GradientMethod):
    def trainable(self, unet: nn.Module) -> list[str]:
        return transformers(unet)

    def apply(self, model: Diffusion, tensors: Tensors, strength: float = 1.0) -> AbstractContextManager[None]:
        return gated_adapters(model, tensors, strength)

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """An adapter for each concept."""
        layers = [name.removesuffix(".weight") for name in names]
        rng = torch.Generator().manual_seed(config.seed)
        made = {membrane_key(spec): init_adapters(model.unet, layers, RANK_ONE, rng) for spec in specs}
        return {
            f"{key}/{name}": tensor.to(model.device).requires_grad_()
            for key, own in made.items()
            for name, tensor in own.items()
        }

    def rate(self, step: int, steps: int) -> float:
        return warm_cosine(step, steps)

    def replaced(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> Tensors:
        return {}

    def attached(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager[None]:
        """Only the adapter of the concept that is trained."""
        own = {name: tensor for name, tensor in tensors.items() if name.rpartition("/")[0] == membrane_key(spec)}
        return gated_adapters(model, own)

    def loss_terms(self, context: StepContext) -> list[LossTerm]:
        target = context.embed(context.spec.target)
        rng = torch.Generator().manual_seed(context.rng.getrandbits(63))
        held = [preserve_term("anchoring", _anchor(target, rng), STRENGTH / ANCHORS) for _ in range(ANCHORS)]
        return [erase_term("target", target), *held]


def warm_cosine(step: int, steps: int) -> float:
    """A linear warm-up, then cosines from 1 to 0 with hard restarts. The first step is not lost: it has a rate too."""
    warm = int(steps * WARM_UP)
    if step < warm:
        return (step + 1) / warm
    return (1 + cos(pi * (CYCLES * (step - warm) / (steps - warm) % 1))) / 2


def _shapes(layer: nn.Module) -> Shapes:
    out, *into = layer.get_parameter("weight").shape
    return (1, *into), (out, 1, *[1] * len(into[1:]))


def _added(layer: nn.Module, x: Tensor, y: Tensor, down: Tensor, up: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation), up)
    return F.linear(F.linear(x, down), up)


RANK_ONE = Form(_shapes, _added)


@contextmanager
def gated_adapters(model: Diffusion, tensors: Tensors, strength: float = 1.0) -> Iterator[None]:
    """Inside, every concept's adapter is attached with its gate γ; several concepts add up.

    Raises CrceError if a tensor does not fit the model.
    """
    with ExitStack() as stack:
        for key, own in by_concept(tensors).items():
            target = key.partition("\t")[0]
            stack.enter_context(attach(model, own, RANK_ONE, _gated(model, target, strength)))
        yield


def membrane_key(spec: ConceptSpec) -> str:
    """What stands before a layer's name: two senses of a word have two adapters."""
    return f"{spec.target}\t{spec.sense}" if spec.sense else spec.target


def by_concept(tensors: Tensors) -> dict[str, Tensors]:
    """Each concept's tensors by `{layer}.down`, under its `membrane_key`."""
    found: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in tensors.items():
        key, _, rest = name.rpartition("/")
        found[key][rest] = tensor
    return dict(found)


def gate(model: Diffusion, prompt: str, target: str) -> float:
    """γ in 0 … 1, SPM's facilitated transport: the cosine between all text states of both, or the share of the
    target's tokens that stand in the prompt, whichever is more.
    """
    a, b = model.embed([prompt, target]).flatten(1)
    erased, there = (set(model.tokenizer(text).input_ids[1:-1]) for text in (target, prompt))
    return max(F.cosine_similarity(a, b, dim=0).item(), len(erased & there) / len(erased))


def _gated(model: Diffusion, target: str, strength: float) -> Callable[[Tensor], Tensor | float]:
    """strength · γ for each row of a batch. Both halves of classifier-free guidance have their prompt's, and where
    nothing is being drawn, as in training, the gate is open.
    """

    @cache
    def gates(prompts: tuple[str, ...]) -> Tensor:
        return strength * torch.tensor([gate(model, p, target) for p in prompts]).to(model.device)

    def scale(y: Tensor) -> Tensor | float:
        if not model.drawing:
            return strength
        halves = len(y) // len(model.drawing)
        return gates(model.drawing).to(y.dtype).repeat(halves).view(-1, *[1] * (y.ndim - 1))

    return scale


def _anchor(target: Tensor, rng: torch.Generator) -> Tensor:
    """A random state [L, d] of about the target's length, the less likely the more it is like it."""
    while True:
        noise = torch.randn(target.shape, generator=rng).to(target)
        if _uniform(rng) < 1 - F.cosine_similarity(noise.flatten(), target.flatten(), dim=0).item():
            return noise / noise.norm() * target.norm() * (0.8 + 0.4 * _uniform(rng))


def _uniform(rng: torch.Generator) -> float:
    return torch.rand((), generator=rng).item()
