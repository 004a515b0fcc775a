"""The settings of an erasure, and what is known of each method without loading it."""

from dataclasses import dataclass, replace

from crce import bases
from crce.catalogue import BACKBONES, CLOSED_FORM, CRCE_VARIANTS, METHOD_FACTS
from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError


@dataclass(frozen=True)
class EraseConfig:
    """What a run is asked to do. `steps` and `lr` of None mean the base model's preset; a closed form takes one step
    and no learning rate, and uses all terms for training.

    eta: strength of the negative guidance, ESD's η in the paper's convention (1 there).
    corefs, retains: M and N, terms drawn per step (§3.2.3).
    on: the backbone, a gradient method whose own loss CRCE's two sums are added to; others have none.
    rows: terms through the U-Net at once; 1 needs the least memory, 0 takes all together, which is fastest.
    guidance: classifier-free guidance while the training latents are sampled (ESD: 3).
    """

    method: str = "crce"
    steps: int | None = None
    lr: float | None = None
    eta: float = 1.0
    corefs: int = 5
    retains: int = 3
    seed: int = 0
    guidance: float = 3.0
    preview_every: int = 50
    checkpoint_every: int = 50
    on: str = "esd-x-strict"
    rows: int = 0

    def __post_init__(self):
        if self.method not in METHOD_FACTS:
            raise CrceError(f"There is no method {self.method!r}. Choose one of {', '.join(METHOD_FACTS)}.")
        if self.on not in BACKBONES:
            raise CrceError(f"{self.on!r} is no backbone for CRCE. Choose one of {', '.join(BACKBONES)}.")
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise CrceError(f"{name} is {value}; give a value from {low} to {high}.")

    @property
    def bottom(self) -> str:
        """The method whose loss it is at bottom: companions learn, and need, what their backbone does."""
        return self.on if self.method in CRCE_VARIANTS else self.method

    @property
    def label(self) -> str:
        """The method's key, with the backbone where that is not the paper's: "crce on ca"."""
        return self.method if self.bottom in (self.method, EraseConfig.on) else f"{self.method} on {self.on}"

    @property
    def title(self) -> str:
        """The same for people: "CRCE on Concept Ablation"."""
        return " on ".join(METHOD_FACTS[key].title for key in self.label.split(" on "))


_LIMITS = (
    ("steps", 1, 100_000), ("lr", 1e-9, 1.0), ("eta", 0, 100), ("corefs", 0, 1000), ("retains", 0, 1000),
    ("seed", 0, 2**63 - 1), ("guidance", 0, 100), ("rows", 0, 1000), ("preview_every", 0, 100_000),
    ("checkpoint_every", 1, 100_000),
)  # fmt: skip


def with_defaults(config: EraseConfig, base: str) -> EraseConfig:
    """Fills the steps and the learning rate that were left open from the base's preset."""
    card = METHOD_FACTS[config.method]
    if card.kind == CLOSED_FORM:
        return replace(config, steps=1, lr=None)
    published = METHOD_FACTS[config.bottom].published
    steps, lr = bases.defaults(base).preset(config.bottom, published)
    return replace(config, steps=config.steps or steps, lr=config.lr or lr)


def check(spec: ConceptSpec, config: EraseConfig) -> None:
    """Raises CrceError if the method draws more terms per step than the spec has for training, or lacks the one that
    it needs."""
    needed = METHOD_FACTS[config.bottom].needs
    if needed and not getattr(spec, f"train_{needed}"):
        raise CrceError(
            f"{spec.name!r} has no training {needed} and {config.bottom} needs one. Add one, or choose another method."
        )
    card = METHOD_FACTS[config.method]
    if card.lists and card.kind != CLOSED_FORM:
        _enough(spec, "corefs", spec.train_corefs, config.corefs, "M")
        _enough(spec, "retains", spec.train_retains, config.retains, "N")


def _enough(spec: ConceptSpec, kind: str, terms: list[Term], wanted: int, letter: str) -> None:
    if len(terms) < wanted:
        raise CrceError(
            f"{spec.name!r} has {len(terms)} training {kind} and each step draws {wanted} ({letter}). "
            f"Add {kind}, or lower --{kind} to {len(terms)} (0 leaves them out)."
        )
