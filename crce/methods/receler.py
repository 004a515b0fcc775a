"""Receler: an eraser after every cross-attention, robust against soft words and kept to the concept's place (Huang et
al., ECCV 2024).

    h' = h + a(h),  a(h) = up(GELU(down(h)))
    L  = ‖ε_{θ+a}(x_t, c ⊕ v, t) − anchor(x_t, c, t)‖² + λ · mean over layers of Σ_outside mean a(h)² / #outside

h is the output of a cross-attention, a of rank 128 or half its channels, with biases: the last column of `down` and of
`up`. v are soft words, put into the states after the target's last one, that bring it back:
min_v ‖ε_{θ+a}(x_t, c ⊕ v, t) − e_c‖². There are 16 for 77 states, and for a text encoder that reads fewer, as many in
proportion. The outside is where the frozen model's attention to the target's words is low.

What differs: x_t comes from the frozen latent cache; the published code samples it anew with the erasers on. There
the soft words take 50 steps of Adam for each of the erasers'; ours take 4, so that a step of the default model takes
about 0.2 s of one core. As there, the words and Adam's moments continue where the last step left them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.attention import attention_maps, cross_attention_layers, token_positions
from crce.methods.base import GradientMethod, Specs, Tensors
from crce.methods.losses import StepContext, anchor
from crce.models.adapters import Form, Shapes, attach, init_adapters
from crce.models.diffusion import Diffusion

LAMBDA = 0.1
THRESHOLD = 0.1
# SD's attention at 16×16 shows things best; of another base, the layers nearest to it.
SIDE = 16
SOFT_WORDS, OF_STATES = 16, 77
ATTACK_STEPS, ATTACK_LR, ATTACK_DECAY = 4, 0.1, 0.1
MAX_RANK = 128


class Receler(GradientMethod):
    def trainable(self, unet: nn.Module) -> list[str]:
        """The last weights of every cross-attention: what the erasers follow."""
        return [f"{name}.to_out.0.weight" for name in cross_attention_layers(unet)]

    def apply(self, model: Diffusion, tensors: Tensors, strength: float = 1.0) -> AbstractContextManager[Tensors]:
        return attach_erasers(model, tensors, strength)

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """Erasers for all concepts in common, and for each the soft words with Adam's moments, which begin as zeros."""
        rng = torch.Generator().manual_seed(config.seed)
        layers = [name.removesuffix(".to_out.0.weight") for name in names]
        own = init_adapters(model.unet, layers, ERASER, rng)
        length, width = model.embed([""])[0].shape
        count = max(1, round(length * SOFT_WORDS / OF_STATES))
        soft: Tensors = {}
        for spec in specs:
            words = torch.rand(count, width, generator=rng)
            state = words, torch.zeros_like(words), torch.zeros_like(words), torch.zeros(())
            soft |= dict(zip(_soft_keys(spec), state, strict=True))
        own = {name: tensor.to(model.device).requires_grad_() for name, tensor in own.items()}
        return own | {name: tensor.to(model.device) for name, tensor in soft.items()}

    def replaced(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> Tensors:
        return {}

    def attached(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager[Tensors]:
        return attach_erasers(model, self.finish(model, (spec,), tensors))

    def losses(self, context: StepContext) -> Tensors:
        return receler_losses(context)

    def finish(self, model: Diffusion, specs: Specs, tensors: Tensors) -> Tensors:
        """The erasers; the soft words have done their work."""
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("soft/")}


def _soft_keys(spec: ConceptSpec) -> list[str]:
    """The names of a concept's soft words, of both of Adam's moments and of its count of steps."""
    return [f"soft/{spec.target}{part}" for part in ("", "/exp_avg", "/exp_avg_sq", "/step")]


def _shapes(layer: nn.Module) -> Shapes:
    """Rank 128, as on SD v1.4, where that is less than half of the channels; a further column holds the biases."""
    channels = layer.get_parameter("to_out.0.weight").shape[0]
    rank = min(MAX_RANK, channels // 2)
    return (rank, channels + 1), (channels, rank + 1)


def _added(layer: nn.Module, x: Tensor, y: Tensor, down: Tensor, up: Tensor) -> Tensor:
    return _affine(F.gelu(_affine(y, down)), up)


def _affine(x: Tensor, w: Tensor) -> Tensor:
    """W x + b for w = [W b]."""
    return F.linear(x, w[:, :-1], w[:, -1])


ERASER = Form(_shapes, _added)


@contextmanager
def attach_erasers(model: Diffusion, tensors: Tensors, strength: float = 1.0) -> Iterator[Tensors]:
    """Inside, the erasers act on every prompt alike. Yields what the last prediction added, by layer.

    Raises CrceError if a tensor does not fit the model.
    """
    added: Tensors = {}
    with attach(model, _with_biases(tensors), ERASER, lambda y: strength, added.__setitem__):
        yield added


def _with_biases(tensors: Tensors) -> Tensors:
    """The erasers of version 0.1 have no biases: a column of zeros gives the same."""
    sides = [
        tuple(tensors[f"{n.removesuffix('.up')}.down"].shape) == tuple(reversed(t.shape))
        for n, t in tensors.items()
        if n.endswith(".up")
    ]
    return {name: F.pad(tensor, (0, 1)) for name, tensor in tensors.items()} if any(sides) else tensors


def receler_losses(context: StepContext, weight: float = LAMBDA) -> Tensors:
    """The two losses; weight: λ, of what is added outside the concept's place."""
    target, sample = context.spec.target, context.sample
    words, state = token_positions(context.model, target, target), context.embed(target)
    outside = _outside_mask(context, state, words)
    attacked = _attack(context, state, words[-1] + 1)
    with context.attached() as added:
        e = context.model.predict(sample.x, sample.t, attacked[None])
    return {"target": F.mse_loss(e, anchor(context)), "outside": weight * mean_energy(added, outside)}


def _outside_mask(context: StepContext, state: Tensor, words: list[int]) -> Tensor:
    """1 where the frozen model pays the words little attention, else 0 [side, side]."""
    with torch.no_grad(), attention_maps(context.model.unet) as maps:
        context.predict([state], tuned=False)
    side = min((isqrt(m.shape[2]) for m in maps), key=lambda s: abs(s - SIDE))
    seen = torch.stack([m[0, :, :, words].float().mean((0, 2)) for m in maps if m.shape[2] == side**2]).mean(0)
    seen = (seen - seen.min()) / (seen.max() - seen.min())
    return (seen <= THRESHOLD).float().view(side, side)


def mean_energy(added: Tensors, outside: Tensor) -> Tensor:
    """What the erasers add outside: mean square, mean over layers."""
    return torch.stack([_energy(a[0].float().square().mean(-1), outside) for a in added.values()]).mean()


def _energy(squares: Tensor, outside: Tensor) -> Tensor:
    """Of one layer [pixels]."""
    side = isqrt(len(squares))
    mask = F.interpolate(outside[None, None], (side, side)).flatten()
    return (squares * mask).sum() / mask.sum().clamp(min=1)


def _attack(context: StepContext, state: Tensor, place: int) -> Tensor:
    """The state with the soft words from `place` on, after their steps against the erasers, and kept with Adam's
    moments."""
    kept, *moments = (context.tensors[key] for key in _soft_keys(context.spec))
    soft = kept.clone().requires_grad_()
    adam = torch.optim.Adam([soft], lr=ATTACK_LR, weight_decay=ATTACK_DECAY)
    adam.state[soft] = dict(zip(("exp_avg", "exp_avg_sq", "step"), moments, strict=True))
    for _ in range(ATTACK_STEPS):
        loss = F.mse_loss(context.predict([_insert(state, soft, place)]), context.sample.e_c)
        (grad,) = torch.autograd.grad(loss * context.loss_scale, soft)
        soft.grad = grad / context.loss_scale
        adam.step()
    kept.copy_(soft.detach())
    return _insert(state, kept, place)


def _insert(state: Tensor, soft: Tensor, place: int) -> Tensor:
    return torch.cat([state[:place], soft[: len(state) - place], state[place + len(soft) :]])
