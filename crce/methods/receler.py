"""Receler: an eraser after every cross-attention, robust against soft words and kept to the concept's place (Huang et
al., ECCV 2024).

    h' = h + a(h),  a(h) = up(GELU(down(h)))
    L  = ‖ε_{θ+a}(x_t, c ⊕ v, t) − anchor(x_t, c, t)‖² + λ · mean over layers of Σ_outside mean a(h)² / #outside

h is the output of a cross-attention, a of rank 128 or half its channels and without biases. v are 16 soft words, put
into the states after the target's last one, that bring it back: min_v ‖ε_{θ+a}(x_t, c ⊕ v, t) − e_c‖². The outside is
where the frozen model's attention to the target's words is low.

x_t comes from the frozen bank; the published code samples it anew with the erasers on. There the soft words take 50
steps of Adam for each of the erasers'; ours take 4, for 100 steps of the default model in about a minute of one core,
but go on where the last step left them, as there (Adam's moments start anew).
"""

from contextlib import AbstractContextManager
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig
from crce.methods.attention import attention_maps, cross_attention_layers, positions
from crce.methods.base import Method, Specs, Tensors, untouched
from crce.methods.losses import StepContext, anchor
from crce.models import adapters
from crce.models.diffusion import Diffusion

LAMBDA = 0.1
THRESHOLD = 0.1
# SD's attention at 16×16 shows things best; of another base, the layers nearest to it.
SIDE = 16
SOFT = 16
ATTACKS = 4
ATTACK = {"lr": 0.1, "weight_decay": 0.1}


def outputs(unet: nn.Module) -> list[str]:
    """The last weights of every cross-attention: what the erasers follow."""
    return [f"{name}.to_out.0.weight" for name in cross_attention_layers(unet)]


def start(model: Diffusion, specs: Specs, config: EraseConfig, names: list[str]) -> Tensors:
    """Erasers for all concepts together, and soft words for each."""
    rng = torch.Generator().manual_seed(config.seed)
    layers = [name.removesuffix(".to_out.0.weight") for name in names]
    own = adapters.fresh(model.unet, layers, adapters.ERASER, rng)
    width = model.embed([""]).shape[-1]
    soft = {f"soft/{spec.target}": torch.rand(SOFT, width, generator=rng).to(model.device) for spec in specs}
    return {**{name: tensor.to(model.device).requires_grad_() for name, tensor in own.items()}, **soft}


def finish(model: Diffusion, specs: Specs, tensors: Tensors) -> Tensors:
    """The erasers: the soft words have done their work."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("soft/")}


def erasers(model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> AbstractContextManager[Tensors]:
    return adapters.erasers(model, finish(model, (spec,), tensors))


def receler(context: StepContext, weight: float = LAMBDA) -> Tensors:
    """weight: λ, of the energy outside."""
    target, moment = context.spec.target, context.sample
    words, state = positions(context.model, target, target), context.model.embed([target])[0]
    outside = _outside(context, state, words)
    attacked = _attacked(context, state, words[-1] + 1)
    with context.adapter() as added:
        e = context.model.predict(moment.x, moment.t, attacked[None])
    return {"target": F.mse_loss(e, anchor(context)), "outside": weight * energy(added, outside)}


def _outside(context: StepContext, state: Tensor, words: list[int]) -> Tensor:
    """1 where the frozen model pays the words little attention, else 0 [side, side]."""
    with torch.no_grad(), attention_maps(context.model.unet) as maps:
        context.predict([state], tuned=False)
    side = min((isqrt(m.shape[2]) for m in maps), key=lambda s: abs(s - SIDE))
    seen = torch.stack([m[0, :, :, words].float().mean((0, 2)) for m in maps if m.shape[2] == side**2]).mean(0)
    seen = (seen - seen.min()) / (seen.max() - seen.min())
    return (seen <= THRESHOLD).float().view(side, side)


def energy(added: Tensors, outside: Tensor) -> Tensor:
    """What the erasers add outside: mean square, mean over layers."""
    return torch.stack([_energy(a[0].float().square().mean(-1), outside) for a in added.values()]).mean()


def _energy(squares: Tensor, outside: Tensor) -> Tensor:
    """Of one layer [pixels]."""
    side = isqrt(len(squares))
    mask = F.interpolate(outside[None, None], (side, side)).flatten()
    return (squares * mask).sum() / mask.sum().clamp(min=1)


def _attacked(context: StepContext, state: Tensor, place: int) -> Tensor:
    """The state with the soft words from `place` on, after their steps against the erasers. They are kept."""
    kept = context.tensors[f"soft/{context.spec.target}"]
    soft = kept.clone().requires_grad_()
    adam = torch.optim.Adam([soft], **ATTACK)
    for _ in range(ATTACKS):
        loss = F.mse_loss(context.predict([_with(state, soft, place)]), context.sample.e_c)
        (soft.grad,) = torch.autograd.grad(loss, soft)
        adam.step()
    kept.copy_(soft.detach())
    return _with(state, kept, place)


def _with(state: Tensor, soft: Tensor, place: int) -> Tensor:
    return torch.cat([state[:place], soft[: len(state) - place], state[place + len(soft) :]])


RECELER = Method(
    outputs, losses=receler, start=start, weights=untouched, adapter=erasers, finish=finish, kind="receler"
)
