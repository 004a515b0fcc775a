"""Every method, by name. Each family is one small file; what a method is, `method` says; `erase` does the rest."""

from collections.abc import Callable
from dataclasses import replace

from crce.config import EraseConfig
from crce.methods.base import ClosedForm, Method
from crce.methods.ca import anchor_concept, as_anchor
from crce.methods.crce import crce, crce_fixed, crce_sphere
from crce.methods.esd import esd
from crce.methods.fmn import fmn
from crce.methods.losses import LossTerm, StepContext
from crce.methods.mace import adapted, fused, refined_with_adapters, unattended
from crce.methods.parameters import all_but_cross_attention, cross_attention, everything, keys_values, queries_keys
from crce.methods.plus import from_closed_form
from crce.methods.realera import realera
from crce.methods.receler import RECELER
from crce.methods.salun import masked, relabelled, salun
from crce.methods.speed import crce_null, speed, values
from crce.methods.spm import SPM
from crce.methods.uce import crce_uce, uce


def _on(backbone: Method, companion: Callable[[StepContext], list[LossTerm]]) -> Method:
    """The backbone with the companion's pulls beside its own."""
    return replace(backbone, pulls=lambda context: [*backbone.loss_terms(context), *companion(context)])


_ESD_X_STRICT = Method(keys_values, pulls=esd)

METHODS = {
    "esd-x-strict": _ESD_X_STRICT,
    "esd-x": Method(cross_attention, pulls=esd),
    "esd-u": Method(all_but_cross_attention, pulls=esd),
    "realera": Method(keys_values, pulls=realera),
    "fmn": Method(queries_keys, losses=fmn),
    "ca": Method(keys_values, pulls=esd, goal=as_anchor, latents=anchor_concept),
    "salun": Method(everything, pulls=salun, goal=relabelled, start=masked),
    "spm": SPM,
    "receler": RECELER,
    "mace": Method(keys_values, losses=unattended, start=refined_with_adapters, weights=adapted, finish=fused),
    "crce-uce": ClosedForm(keys_values, crce_uce),
    "uce": ClosedForm(keys_values, uce),
    "crce-plus": replace(_on(_ESD_X_STRICT, crce), start=from_closed_form),
    "crce-null": ClosedForm(values, crce_null),
    "speed": ClosedForm(values, speed),
}

# What is added to the loss of another method, the backbone (`EraseConfig.on`).
CRCE_VARIANTS = {"crce": crce, "crce-fixed": crce_fixed, "crce-sphere": crce_sphere}


def method_of(config: EraseConfig) -> Method | ClosedForm:
    """The method that a run asks for, a companion together with its backbone."""
    if companion := CRCE_VARIANTS.get(config.method):
        return _on(METHODS[config.on], companion)
    return METHODS[config.method]
