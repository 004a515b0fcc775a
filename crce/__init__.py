"""CRCE: erase a concept and its other names from a text-to-image model, and keep its neighbours.

The names below are the public API. Torch is imported only when a name that needs it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from crce.concepts.library import find_concept
    from crce.concepts.spec import ConceptSpec, Term
    from crce.config import EraseConfig
    from crce.errors import CrceError
    from crce.evaluation.evaluate import evaluate
    from crce.methods.erased_weights import ErasedWeights
    from crce.models.diffusion import Diffusion
    from crce.proposers.proposers import propose
    from crce.training.loop import erase, erase_steps, preview

_HOMES = {
    "ConceptSpec": "crce.concepts.spec",
    "CrceError": "crce.errors",
    "Diffusion": "crce.models.diffusion",
    "EraseConfig": "crce.config",
    "ErasedWeights": "crce.methods.erased_weights",
    "Term": "crce.concepts.spec",
    "erase": "crce.training.loop",
    "erase_steps": "crce.training.loop",
    "evaluate": "crce.evaluation.evaluate",
    "find_concept": "crce.concepts.library",
    "preview": "crce.training.loop",
    "propose": "crce.proposers.proposers",
}

__all__ = [
    "ConceptSpec", "CrceError", "Diffusion", "EraseConfig", "ErasedWeights", "Term", "__version__", "erase",
    "erase_steps", "evaluate", "find_concept", "preview", "propose",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
