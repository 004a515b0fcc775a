"""CRCE and its two ablations (Xue et al., §3.2.3 and §4.3): weighted corefs and retains, added to the loss of a
backbone (ESD-x strict in the paper; its poster says "the original concept erasure loss")."""

import torch
from torch import Tensor

from crce.concepts.spec import Term
from crce.methods.losses import Draw, Pull, hold, push


def crce(draw: Draw) -> list[Pull]:
    """§3.2.3: M corefs pushed to the *target's* goal and N retains held, drawn anew in each step."""
    spec, config = draw.spec, draw.config
    corefs = draw.rng.sample(spec.train_corefs, config.corefs)
    retains = draw.rng.sample(spec.train_retains, config.retains)
    return [*_pushed(draw, corefs), *_held(draw, retains)]


def crce_fixed(draw: Draw) -> list[Pull]:
    """§4.3 "CRCE-Fixed": one subset for the whole run. Which is not stated; ours is that of highest certainty."""
    corefs = draw.spec.train_corefs[: draw.config.corefs]
    retains = draw.spec.train_retains[: draw.config.retains]
    return [*_pushed(draw, corefs), *_held(draw, retains)]


def crce_sphere(draw: Draw) -> list[Pull]:
    """§4.3 "CRCE-Sphere": M random points around the target in place of the corefs, weight 1 each.

    A point lies as far from the target as a randomly drawn training coref does, in the encoder's hidden
    states (our reading: the paper leaves the radius open). The retains are the spec's own.
    """
    spec, config = draw.spec, draw.config
    radii = draw.rng.choices(spec.train_corefs, k=config.corefs) if config.corefs else []
    retains = draw.rng.sample(spec.train_retains, config.retains)
    points = [push("corefs", around(draw, term), 1 / config.corefs) for term in radii]
    return [*points, *_held(draw, retains)]


def _pushed(draw: Draw, corefs: list[Term]) -> list[Pull]:
    states = draw.model.embed([t.text for t in corefs]) if corefs else []
    return [push("corefs", s, t.weight / len(corefs)) for t, s in zip(corefs, states, strict=True)]


def _held(draw: Draw, retains: list[Term]) -> list[Pull]:
    states = draw.model.embed([t.text for t in retains]) if retains else []
    return [hold("retains", s, t.weight / len(retains)) for t, s in zip(retains, states, strict=True)]


def around(draw: Draw, coref: Term, scale: float = 1.0) -> Tensor:
    """A random state [L, d], `scale` times as far from the target's as the coref's is."""
    target, state = draw.model.embed([draw.spec.target, coref.text])
    dice = torch.Generator().manual_seed(draw.rng.getrandbits(63))
    direction = torch.randn(target.shape, generator=dice).to(target)
    return target + direction * (scale * (state - target).norm() / direction.norm())
