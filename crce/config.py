"""The settings of an erasure, and what is known of each method without loading it."""

from dataclasses import dataclass, replace

from crce import bases
from crce.concepts import ConceptSpec, Term
from crce.errors import CrceError


@dataclass(frozen=True)
class MethodCard:
    """A method for people: its kind, the weights it touches and where it was published.

    lists: whether it draws corefs and retains at all.
    needs: the list of which it needs a training term, "corefs" or "retains", where it does not draw from both.
    published: steps and learning rate for SD v1.4 in its paper or code; None: those of the CRCE paper (App. B).
    """

    key: str
    title: str
    kind: str
    touches: str
    what: str
    source: str
    lists: bool = True
    needs: str = ""
    published: tuple[int, float] | None = None


CLOSED_FORM = "closed form"
ADAPTER = "adapter"
COMPANIONS = ("crce", "crce-fixed", "crce-sphere")
_FMN = "Zhang et al., Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models, CVPR Workshops 2024"
_CA = "Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, ICCV 2023"
_SALUN = "Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, ICLR 2024"
_REALERA = "Liu et al., RealEra: Semantic-level Concept Erasure via Neighbor-Concept Mining, 2024"
_ESD = "Gandikota et al., Erasing Concepts from Diffusion Models, ICCV 2023"
_SPM = "Lyu et al., One-dimensional Adapter to Rule Them All, CVPR 2024"
_RECELER = "Huang et al., Receler: Reliable Concept Erasing of Text-to-Image Diffusion Models, ECCV 2024"
_UCE = "Gandikota et al., Unified Concept Editing in Diffusion Models, WACV 2024"
_MACE = "Lu et al., MACE: Mass Concept Erasure in Diffusion Models, CVPR 2024"
_SPEED = "Li et al., SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models, ICLR 2026"
_CRCE = "Xue et al., CRCE: Coreference-Retention Concept Erasure, 2025"
METHOD_CARDS = {
    card.key: card
    for card in (
        MethodCard("crce", "CRCE", "gradient", "attn2 K, V",
                   "Pushes the target and M corefs, drawn anew each step, away; holds N retains still.",
                   f"{_CRCE}, §3.2.3"),
        MethodCard("crce-plus", "CRCE-plus", "mixed", "attn2 K, V",
                   "The closed form first, then CRCE's training from there.", "ours"),
        MethodCard("crce-fixed", "CRCE-Fixed", "gradient", "attn2 K, V",
                   "CRCE with one fixed set: the M corefs and N retains of highest certainty.",
                   f"{_CRCE}, §4.3"),
        MethodCard("crce-sphere", "CRCE-Sphere", "gradient", "attn2 K, V",
                   "CRCE with M random points around the target in place of the corefs.",
                   f"{_CRCE}, §4.3"),
        MethodCard("esd-x-strict", "ESD-x strict", "gradient", "attn2 K, V",
                   "Pushes the target alone away; the paper's \"ESD-x\".", f"{_ESD}; {_CRCE}, App. B",
                   lists=False),
        MethodCard("esd-x", "ESD-x", "gradient", "attn2 Q, K, V, out",
                   "Pushes the target alone away, with all of the cross-attention.", _ESD, lists=False),
        MethodCard("esd-u", "ESD-u", "gradient", "all but attn2",
                   "Pushes the target alone away, with everything that does not see the text.", _ESD, lists=False),
        MethodCard("realera", "RealEra", "gradient", "attn2 K, V",
                   "Pushes the target and 10 random points near it away; holds 2 random points further off.",
                   f"{_REALERA}; {_CRCE}, App. B",
                   lists=False, needs="corefs"),
        MethodCard("fmn", "Forget-Me-Not", "gradient, attention", "attn2 Q, K",
                   "Drives the attention that the picture pays to the target's words to zero.", _FMN,
                   lists=False, published=(35, 2e-6)),
        MethodCard("ca", "Concept Ablation", "gradient", "attn2 K, V",
                   "Draws an anchor concept, the most certain retain, in the target's place.", _CA,
                   lists=False, needs="retains", published=(200, 8e-6)),
        MethodCard("salun", "SalUn", "gradient", "the salient half of all weights",
                   "Relabels the target as the most certain retain and holds a random one, in the weights that "
                   "matter for the target.", _SALUN, lists=False, needs="retains", published=(500, 1e-5)),
        MethodCard("spm", "SPM", ADAPTER, "a rank-1 membrane beside every layer of the transformers",
                   "Pushes the target alone away with small layers that act on prompts near it only; holds random "
                   "points.", _SPM, lists=False, published=(3000, 1e-4)),
        MethodCard("receler", "Receler", ADAPTER, "an eraser after every attn2",
                   "Pushes the target alone away with small layers that withstand soft words against them and act "
                   "where the concept is.", _RECELER, lists=False, published=(500, 3e-4)),
        MethodCard("mace", "MACE", "mixed", "attn2 K, V",
                   "Maps what surrounds the target in its prompts to where it is missing, then drives the attention to "
                   "its words to zero.", _MACE, lists=False, published=(50, 1e-5)),
        MethodCard("crce-uce", "CRCE-UCE", CLOSED_FORM, "attn2 K, V",
                   "Maps the target and every coref to the empty prompt and holds every retain, all at once; "
                   "no training.", f"{_UCE}; the lists and certainties of {_CRCE}"),
        MethodCard("uce", "UCE", CLOSED_FORM, "attn2 K, V",
                   "Maps the target alone to the empty prompt, at once; no training.", _UCE, lists=False),
        MethodCard("crce-null", "CRCE-Null", CLOSED_FORM, "attn2 V",
                   "Maps the target and every coref to the empty prompt, in directions that no retain has a part in; "
                   "no training.", f"{_SPEED}; the lists and certainties of {_CRCE}"),
        MethodCard("speed", "SPEED", CLOSED_FORM, "attn2 V",
                   "Maps the target alone to the empty prompt, in directions that CorefConcept's other concepts have "
                   "no part in; no training.", _SPEED, lists=False),
    )
}  # fmt: skip


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
        if self.method not in METHOD_CARDS:
            raise CrceError(f"There is no method {self.method!r}. Choose one of {', '.join(METHOD_CARDS)}.")
        if self.on not in BACKBONES:
            raise CrceError(f"{self.on!r} is no backbone for CRCE. Choose one of {', '.join(BACKBONES)}.")
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise CrceError(f"{name} is {value}; give a value from {low} to {high}.")

    @property
    def bottom(self) -> str:
        """The method whose loss it is at bottom: companions learn, and need, what their backbone does."""
        return self.on if self.method in COMPANIONS else self.method

    @property
    def label(self) -> str:
        """The method's key, with the backbone where that is not the paper's: "crce on ca"."""
        return self.method if self.bottom in (self.method, EraseConfig.on) else f"{self.method} on {self.on}"

    @property
    def title(self) -> str:
        """The same for people: "CRCE on Concept Ablation"."""
        return " on ".join(METHOD_CARDS[key].title for key in self.label.split(" on "))


BACKBONES = ("esd-x-strict", "esd-u", "ca", "fmn")
_LIMITS = (
    ("steps", 1, 100_000), ("lr", 1e-9, 1.0), ("eta", 0, 100), ("corefs", 0, 1000), ("retains", 0, 1000),
    ("seed", 0, 2**63 - 1), ("guidance", 0, 100), ("rows", 0, 1000), ("preview_every", 0, 100_000),
    ("checkpoint_every", 1, 100_000),
)  # fmt: skip


def with_defaults(config: EraseConfig, base: str) -> EraseConfig:
    """Fills the steps and the learning rate that were left open from the base's preset."""
    card = METHOD_CARDS[config.method]
    if card.kind == CLOSED_FORM:
        return replace(config, steps=1, lr=None)
    published = METHOD_CARDS[config.bottom].published
    steps, lr = bases.defaults(base).preset(config.bottom, published)
    return replace(config, steps=config.steps or steps, lr=config.lr or lr)


def check(spec: ConceptSpec, config: EraseConfig) -> None:
    """Raises CrceError if the method draws more terms per step than the spec has for training, or lacks the one that
    it needs."""
    needed = METHOD_CARDS[config.bottom].needs
    if needed and not getattr(spec, f"train_{needed}"):
        raise CrceError(
            f"{spec.name!r} has no training {needed} and {config.bottom} needs one. Add one, or choose another method."
        )
    card = METHOD_CARDS[config.method]
    if card.lists and card.kind != CLOSED_FORM:
        _enough(spec, "corefs", spec.train_corefs, config.corefs, "M")
        _enough(spec, "retains", spec.train_retains, config.retains, "N")


def _enough(spec: ConceptSpec, kind: str, terms: list[Term], wanted: int, letter: str) -> None:
    if len(terms) < wanted:
        raise CrceError(
            f"{spec.name!r} has {len(terms)} training {kind} and each step draws {wanted} ({letter}). "
            f"Add {kind}, or lower --{kind} to {len(terms)} (0 leaves them out)."
        )
