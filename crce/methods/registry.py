"""Every method, by its key in `catalogue.METHOD_FACTS`."""

from dataclasses import replace

from crce.config import EraseConfig, check_damping
from crce.errors import CrceError
from crce.methods.base import ClosedForm, GradientMethod
from crce.methods.ca import ConceptAblation
from crce.methods.crce import Crce, crce, crce_fixed, crce_sphere
from crce.methods.esd import Esd
from crce.methods.fmn import ForgetMeNot
from crce.methods.mace import Mace
from crce.methods.parameters import all_but_cross_attention, cross_attention
from crce.methods.plus import CrcePlus
from crce.methods.realera import RealEra
from crce.methods.receler import Receler
from crce.methods.salun import SalUn
from crce.methods.speed import CrceNull, Speed
from crce.methods.spm import Spm
from crce.methods.uce import CrceUce, Uce, UceAsPublished

METHODS: dict[str, GradientMethod | ClosedForm] = {
    "esd-x-strict": Esd(),
    "esd-x": Esd(cross_attention),
    "esd-u": Esd(all_but_cross_attention),
    "realera": RealEra(),
    "fmn": ForgetMeNot(),
    "ca": ConceptAblation(),
    "salun": SalUn(),
    "spm": Spm(),
    "receler": Receler(),
    "mace": Mace(),
    "crce-uce": CrceUce(),
    "uce": Uce(),
    "uce-published": UceAsPublished(),
    "crce-plus": CrcePlus(extra_terms=crce),
    "crce-null": CrceNull(),
    "speed": Speed(),
}

# Added to the loss of another method, the backbone (`EraseConfig.backbone`).
CRCE_VARIANTS = {"crce": Crce(crce), "crce-fixed": Crce(crce_fixed), "crce-sphere": Crce(crce_sphere)}


def gradient_method_of(config: EraseConfig) -> GradientMethod:
    """The method that a run trains. Raises CrceError for a closed form."""
    method = method_of(config)
    if isinstance(method, ClosedForm):
        raise CrceError(f"{config.method!r} is solved at once, without training.")
    return method


def method_of(config: EraseConfig) -> GradientMethod | ClosedForm:
    """The method that a run asks for, with its λ and anchor; a variant of CRCE together with its backbone.

    Raises CrceError for a λ where the method has none.
    """
    method = METHODS[config.base_method]
    check_damping(config)
    if config.damping is not None:
        method = replace(method, damping=config.damping)  # type: ignore[type-var]
    if hasattr(method, "anchor"):
        method = replace(method, anchor=config.anchor)  # type: ignore[type-var]
    if variant := CRCE_VARIANTS.get(config.method):
        assert isinstance(method, GradientMethod), "tests check that every backbone trains"
        return variant.on(method)
    return method
