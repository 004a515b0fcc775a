"""CRCE and its two ablations (Xue et al., §3.2.3 and §4.3): weighted corefs and retains, added to the loss of a
backbone (ESD-x strict in the paper; its poster says "the original concept erasure loss")."""

import torch
from torch import Tensor

from crce.concepts.spec import Term
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term


def crce(context: StepContext) -> list[LossTerm]:
    """§3.2.3: M corefs pushed to the *target's* goal and N retains held, drawn anew in each step."""
    spec, config = context.spec, context.config
    corefs = context.rng.sample(spec.train_corefs, config.corefs)
    retains = context.rng.sample(spec.train_retains, config.retains)
    return [*_pushed(context, corefs), *_held(context, retains)]


def crce_fixed(context: StepContext) -> list[LossTerm]:
    """§4.3 "CRCE-Fixed": one subset for the whole run. Which is not stated; ours is that of highest certainty."""
    corefs = context.spec.train_corefs[: context.config.corefs]
    retains = context.spec.train_retains[: context.config.retains]
    return [*_pushed(context, corefs), *_held(context, retains)]


def crce_sphere(context: StepContext) -> list[LossTerm]:
    """§4.3 "CRCE-Sphere": M random points around the target in place of the corefs, weight 1 each.

    A point lies as far from the target as a randomly drawn training coref does, in the encoder's hidden
    states (our reading: the paper leaves the radius open). The retains are the spec's own.
    """
    spec, config = context.spec, context.config
    radii = context.rng.choices(spec.train_corefs, k=config.corefs) if config.corefs else []
    retains = context.rng.sample(spec.train_retains, config.retains)
    points = [erase_term("corefs", around(context, term), 1 / config.corefs) for term in radii]
    return [*points, *_held(context, retains)]


def _pushed(context: StepContext, corefs: list[Term]) -> list[LossTerm]:
    states = context.model.embed([t.text for t in corefs]) if corefs else []
    return [erase_term("corefs", s, t.weight / len(corefs)) for t, s in zip(corefs, states, strict=True)]


def _held(context: StepContext, retains: list[Term]) -> list[LossTerm]:
    states = context.model.embed([t.text for t in retains]) if retains else []
    return [preserve_term("retains", s, t.weight / len(retains)) for t, s in zip(retains, states, strict=True)]


def around(context: StepContext, coref: Term, scale: float = 1.0) -> Tensor:
    """A random state [L, d], `scale` times as far from the target's as the coref's is."""
    target, state = context.model.embed([context.spec.target, coref.text])
    rng = torch.Generator().manual_seed(context.rng.getrandbits(63))
    direction = torch.randn(target.shape, generator=rng).to(target)
    return target + direction * (scale * (state - target).norm() / direction.norm())
