from dataclasses import dataclass


@dataclass(frozen=True)
class MethodFacts:
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


CRCE_VARIANTS = ("crce", "crce-fixed", "crce-sphere")


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


METHOD_FACTS = {
    card.key: card
    for card in (
        MethodFacts("crce", "CRCE", "gradient", "attn2 K, V",
                   "Pushes the target and M corefs, drawn anew each step, away; holds N retains still.",
                   f"{_CRCE}, §3.2.3"),
        MethodFacts("crce-plus", "CRCE-plus", "mixed", "attn2 K, V",
                   "The closed form first, then CRCE's training from there.", "ours"),
        MethodFacts("crce-fixed", "CRCE-Fixed", "gradient", "attn2 K, V",
                   "CRCE with one fixed set: the M corefs and N retains of highest certainty.",
                   f"{_CRCE}, §4.3"),
        MethodFacts("crce-sphere", "CRCE-Sphere", "gradient", "attn2 K, V",
                   "CRCE with M random points around the target in place of the corefs.",
                   f"{_CRCE}, §4.3"),
        MethodFacts("esd-x-strict", "ESD-x strict", "gradient", "attn2 K, V",
                   "Pushes the target alone away; the paper's \"ESD-x\".", f"{_ESD}; {_CRCE}, App. B",
                   lists=False),
        MethodFacts("esd-x", "ESD-x", "gradient", "attn2 Q, K, V, out",
                   "Pushes the target alone away, with all of the cross-attention.", _ESD, lists=False),
        MethodFacts("esd-u", "ESD-u", "gradient", "all but attn2",
                   "Pushes the target alone away, with everything that does not see the text.", _ESD, lists=False),
        MethodFacts("realera", "RealEra", "gradient", "attn2 K, V",
                   "Pushes the target and 10 random points near it away; holds 2 random points further off.",
                   f"{_REALERA}; {_CRCE}, App. B",
                   lists=False, needs="corefs"),
        MethodFacts("fmn", "Forget-Me-Not", "gradient, attention", "attn2 Q, K",
                   "Drives the attention that the picture pays to the target's words to zero.", _FMN,
                   lists=False, published=(35, 2e-6)),
        MethodFacts("ca", "Concept Ablation", "gradient", "attn2 K, V",
                   "Draws an anchor concept, the most certain retain, in the target's place.", _CA,
                   lists=False, needs="retains", published=(200, 8e-6)),
        MethodFacts("salun", "SalUn", "gradient", "the salient half of all weights",
                   "Relabels the target as the most certain retain and holds a random one, in the weights that "
                   "matter for the target.", _SALUN, lists=False, needs="retains", published=(500, 1e-5)),
        MethodFacts("spm", "SPM", ADAPTER, "a rank-1 membrane beside every layer of the transformers",
                   "Pushes the target alone away with small layers that act on prompts near it only; holds random "
                   "points.", _SPM, lists=False, published=(3000, 1e-4)),
        MethodFacts("receler", "Receler", ADAPTER, "an eraser after every attn2",
                   "Pushes the target alone away with small layers that withstand soft words against them and act "
                   "where the concept is.", _RECELER, lists=False, published=(500, 3e-4)),
        MethodFacts("mace", "MACE", "mixed", "attn2 K, V",
                   "Maps what surrounds the target in its prompts to where it is missing, then drives the attention to "
                   "its words to zero.", _MACE, lists=False, published=(50, 1e-5)),
        MethodFacts("crce-uce", "CRCE-UCE", CLOSED_FORM, "attn2 K, V",
                   "Maps the target and every coref to the empty prompt and holds every retain, all at once; "
                   "no training.", f"{_UCE}; the lists and certainties of {_CRCE}"),
        MethodFacts("uce", "UCE", CLOSED_FORM, "attn2 K, V",
                   "Maps the target alone to the empty prompt, at once; no training.", _UCE, lists=False),
        MethodFacts("crce-null", "CRCE-Null", CLOSED_FORM, "attn2 V",
                   "Maps the target and every coref to the empty prompt, in directions that no retain has a part in; "
                   "no training.", f"{_SPEED}; the lists and certainties of {_CRCE}"),
        MethodFacts("speed", "SPEED", CLOSED_FORM, "attn2 V",
                   "Maps the target alone to the empty prompt, in directions that CorefConcept's other concepts have "
                   "no part in; no training.", _SPEED, lists=False),
    )
}  # fmt: skip


BACKBONES = ("esd-x-strict", "esd-u", "ca", "fmn")
