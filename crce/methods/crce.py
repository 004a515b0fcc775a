"""CRCE and its two ablations (Xue et al., §3.2.3 and §4.3): weighted corefs and retains, added to the loss of a
backbone (ESD-x strict in the paper; its poster says "the original concept erasure loss")."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from crce.concepts.spec import Term
from crce.methods.ball import draw_inside
from crce.methods.base import GradientMethod
from crce.methods.losses import LossTerm, StepContext, erase_term, preserve_term


@dataclass(frozen=True)
class Crce:
    """CRCE or a variant of it: `terms` are added to a backbone's loss."""

    terms: Callable[[StepContext], list[LossTerm]]

    def on(self, backbone: GradientMethod) -> GradientMethod:
        """The backbone with the further terms in its loss."""
        return replace(backbone, extra_terms=self.terms)


def crce(context: StepContext) -> list[LossTerm]:
    """§3.2.3: M corefs pushed to the *target's* goal and N retains held, drawn anew in each step."""
    spec, config = context.spec, context.config
    corefs = context.rng.sample(spec.train_corefs, config.corefs)
    retains = context.rng.sample(spec.train_retains, config.retains)
    return [*_erase(context, corefs), *_preserve(context, retains)]


def crce_fixed(context: StepContext) -> list[LossTerm]:
    """§4.3 "CRCE-Fixed": one subset for the whole run. Which is not stated; ours has the highest certainties."""
    corefs = context.spec.train_corefs[: context.config.corefs]
    retains = context.spec.train_retains[: context.config.retains]
    return [*_erase(context, corefs), *_preserve(context, retains)]


def crce_sphere(context: StepContext) -> list[LossTerm]:
    """§4.3 "CRCE-Sphere": M random points around the target instead of the corefs, each of weight 1, drawn as RealEra
    draws them: inside its ball (`ball.draw_inside`). The retains are the spec's own, with their certainties."""
    spec, config = context.spec, context.config
    retains = context.rng.sample(spec.train_retains, config.retains)
    points = [erase_term("corefs", draw_inside(context), 1 / config.corefs) for _ in range(config.corefs)]
    return [*points, *_preserve(context, retains)]


def _erase(context: StepContext, corefs: list[Term]) -> list[LossTerm]:
    return [erase_term("corefs", state, t.weight / len(corefs)) for t, state in _states(context, corefs)]


def _preserve(context: StepContext, retains: list[Term]) -> list[LossTerm]:
    return [preserve_term("retains", state, t.weight / len(retains)) for t, state in _states(context, retains)]


def _states(context: StepContext, terms: list[Term]) -> Iterator[tuple[Term, Tensor]]:
    """Each term with its states [L, d], encoded in one batch."""
    return zip(terms, context.model.embed([t.text for t in terms]) if terms else [], strict=True)
