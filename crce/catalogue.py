"""What is known of each method without loading it: one row per method. Its code is in `methods.registry`. No torch."""

from dataclasses import dataclass

CLOSED_FORM = "closed form"
ADAPTER = "adapter"
# As what a method draws the target unless an anchor is given.
OPPOSITE, NOTHING, RETAIN = "its opposite", "nothing", "the most certain retain"


@dataclass(frozen=True)
class Result:
    """What an erasure leaves behind, and which file formats hold it (`publishing.export`).

    kind: "weights" for changed weights of the U-Net, else the key of the method whose adapter layers they are.
    why_not: what to tell someone who asks for another format. note: what a reader of the model card must know.
    """

    kind: str = "weights"
    exports: tuple[str, ...] = ("weights", "diff", "lora", "pipeline", "checkpoint")
    why_not: str = ""
    note: str = ""


WEIGHTS = Result()


@dataclass(frozen=True)
class MethodFacts:
    """A method for people: its kind, the weights it changes and where it was published.

    lists: whether it uses corefs and retains.
    needs: "corefs" or "retains", the list of which it needs a training term, if it does not draw from both.
    differs: what stays different from the published method, for people; its file says more. Empty where nothing does.
    published: steps and learning rate for SD v1.4 in its paper or code; None means those of the CRCE paper (App. B).
    is_backbone: whether CRCE's sums can be added to its loss. variant: whether it is CRCE's loss added to a backbone.
    anchor: as what it draws the target unless told otherwise (`EraseConfig.anchor`); empty where it cannot be told.
    attribute: whether it can erase an attribute from a concept alone (`EraseConfig.erase_from`).
    damped: whether it has a λ (`EraseConfig.damping`).
    """

    key: str
    title: str
    kind: str
    touches: str
    what: str
    source: str
    lists: bool = False
    needs: str = ""
    published: tuple[int, float] | None = None
    is_backbone: bool = False
    variant: bool = False
    result: Result = WEIGHTS
    differs: str = ""
    anchor: str = ""
    attribute: bool = False
    damped: bool = False


_BALL = "The ball's radius is not published: ours is the distance of a randomly drawn training coref."
_POSITIONS = "Edits every position from the first word on, where the public code edits only the last word."
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

_ROWS = (
    MethodFacts(
        "crce", "CRCE", "gradient", "attn2 K, V",
        "Pushes the target and M corefs, drawn anew each step, away; preserves N retains.",
        f"{_CRCE}, §3.2.3", lists=True, variant=True,
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "crce-plus", "CRCE-plus", "mixed", "attn2 K, V",
        "The closed form first, then CRCE's training from there.", "ours", lists=True,
        anchor=OPPOSITE, damped=True,
    ),
    MethodFacts(
        "crce-fixed", "CRCE-Fixed", "gradient", "attn2 K, V",
        "CRCE with one fixed set: the M corefs and N retains of highest certainty.",
        f"{_CRCE}, §4.3", lists=True, variant=True,
        differs="The paper does not say which terms are fixed: ours are the most certain.",
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "crce-sphere", "CRCE-Sphere", "gradient", "attn2 K, V",
        "CRCE with M random points around the target instead of the corefs.",
        f"{_CRCE}, §4.3", lists=True, variant=True,
        differs=_BALL,
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "esd-x-strict", "ESD-x strict", "gradient", "attn2 K, V",
        'Pushes only the target away; the paper\'s "ESD-x".', f"{_ESD}; {_CRCE}, App. B", is_backbone=True,
        anchor=OPPOSITE, attribute=True,
    ),
    MethodFacts(
        "esd-x", "ESD-x", "gradient", "attn2 Q, K, V, out",
        "Pushes only the target away, with all of the cross-attention.", _ESD,
        anchor=OPPOSITE, attribute=True,
    ),
    MethodFacts(
        "esd-u", "ESD-u", "gradient", "all linear and convolution layers but attn2",
        "Pushes only the target away, with all weights that do not see the text.", _ESD, is_backbone=True,
        anchor=OPPOSITE, attribute=True,
    ),
    MethodFacts(
        "realera", "RealEra", "gradient", "attn2 K, V",
        "Pushes the target and 10 random points near it away; preserves 2 random points further off.",
        f"{_REALERA}; {_CRCE}, App. B", needs="corefs",
        differs=f"Without RealEra's closed form and LoRA, as in the CRCE paper. {_BALL}",
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "fmn", "Forget-Me-Not", "gradient, attention", "attn2 Q, K",
        "Drives the attention that the picture pays to the target's words to zero.", _FMN,
        published=(35, 2e-6), is_backbone=True,
        differs="Trains Q and K where the public code trains the whole U-Net or all of attn2; no textual inversion; "
        "sampled latents in place of pictures.",
    ),
    MethodFacts(
        "ca", "Concept Ablation", "gradient", "attn2 K, V",
        "Draws an anchor concept, the most certain retain, in the target's place.", _CA,
        needs="retains", published=(200, 8e-6), is_backbone=True,
        differs="Sampled latents and the anchor's name in place of 1000 pictures and 200 prompts; the anchor's "
        "prediction is the frozen model's; one latent a step instead of four.",
        anchor=RETAIN,
    ),
    MethodFacts(
        "salun", "SalUn", "gradient", "the salient half of all weights",
        "Relabels the target as the most certain retain and preserves a random one, in the weights that matter for the "
        "target.", _SALUN, needs="retains", published=(500, 1e-5),
        differs="The new label's and the retains' predictions are the frozen model's; one latent of each a step "
        "instead of eight; the mask is made of one sampled picture instead of 800.",
        anchor=RETAIN,
    ),
    MethodFacts(
        "spm", "SPM", ADAPTER, "a rank-1 adapter beside every layer of the transformers",
        "Pushes only the target away, with small layers that act on prompts near it; preserves random points.",
        _SPM, published=(3000, 1e-4),
        result=Result(
            "spm", ("lora",),
            why_not="SPM adds gated adapter layers. Choose only lora: it holds the layers, but not the gate.",
            note="It holds the adapter layers as trained, but **not their gate**. In CRCE Studio a layer acts on a "
            "prompt in proportion to how near the prompt is to the concept; as a LoRA it acts on every prompt in "
            "full, so it may change more than what was measured.",
        ),
        differs="Latents come from the frozen model; plain Adam instead of AdamW in 8 bits.",
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "receler", "Receler", ADAPTER, "an adapter after every attn2",
        "Pushes only the target away, with small layers trained against adversarial soft words and confined to where "
        "the concept is in the picture.", _RECELER, published=(500, 3e-4),
        result=Result(
            "receler", (),
            why_not="Receler adds nonlinear adapter layers (GELU), which no other program's format can hold. They work "
            "here: in Compare, and with `crce generate --run …`.",
        ),
        differs="Latents come from the frozen model; the soft words take 4 steps to each of the erasers', where the "
        "public code has 50.",
        anchor=OPPOSITE,
    ),
    MethodFacts(
        "mace", "MACE", "mixed", "attn2 K, V",
        "Maps the states around the target's words to those of the prompt without it, then drives the attention to "
        "its words to zero.", _MACE, published=(50, 1e-5),
        differs="No pictures, no segmenter and no preserved captions; 8 prompts instead of 30; the concept gives way "
        "to nothing instead of a more general concept; every timestep counts the same. One λ for both of its closed "
        "forms.",
        damped=True,
    ),
    MethodFacts(
        "crce-uce", "CRCE-UCE", CLOSED_FORM, "attn2 K, V",
        "Maps the target and every coref to the empty prompt and preserves every retain, all at once; no training.",
        f"{_UCE}; the lists and certainties of {_CRCE}", lists=True,
        anchor=NOTHING, damped=True,
    ),
    MethodFacts(
        "uce", "UCE", CLOSED_FORM, "attn2 K, V",
        "Maps only the target to the empty prompt, at once; no training.", _UCE,
        differs=_POSITIONS, anchor=NOTHING, damped=True,
    ),
    MethodFacts(
        "uce-published", "UCE as published", CLOSED_FORM, "attn2 K, V",
        "Maps only the last word of the target to the empty prompt, with the public script's λ = 0.5; no training.",
        _UCE,
    ),
    MethodFacts(
        "crce-null", "CRCE-Null", CLOSED_FORM, "attn2 V",
        "Maps the target and every coref to the empty prompt, in directions that no retain uses; no training.",
        f"{_SPEED}; the lists and certainties of {_CRCE}", lists=True,
        anchor=NOTHING, damped=True,
    ),
    MethodFacts(
        "speed", "SPEED", CLOSED_FORM, "attn2 V",
        "Maps only the target to the empty prompt, in directions that CorefConcept's other concepts do not use; no "
        "training.", _SPEED,
        differs=f"{_POSITIONS} The retains are CorefConcept's other concepts; the ten noisy copies of each are taken "
        "in expectation, and the centres are thirds instead of k-means.",
        anchor=NOTHING, damped=True,
    ),
)  # fmt: skip

METHOD_FACTS = {facts.key: facts for facts in _ROWS}
BACKBONES = tuple(facts.key for facts in _ROWS if facts.is_backbone)


def result_of(kind: str) -> Result:
    """The result of this kind, as a weights file names it."""
    return next((facts.result for facts in METHOD_FACTS.values() if facts.result.kind == kind), WEIGHTS)
