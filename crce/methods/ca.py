"""Concept Ablation: the target is drawn as an anchor concept is (Kumari et al., ICCV 2023)."""

from dataclasses import dataclass

from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.methods.esd import Esd
from crce.methods.losses import StepContext


@dataclass(frozen=True)
class ConceptAblation(Esd):
    """L = ‖ε_θ(x_t, c, t) − ε(x_t, c*, t)‖² on latents x_t of the anchor c*.

    It is ESD's one term, on other latents and with another goal. The latent cache takes the place of the 1000 pictures
    of the anchor; and where the paper's ε is the network in training without a gradient, ours is the frozen one, which
    the cache holds.

    anchor: c*; None means the training retain of highest certainty.
    """

    anchor: str | None = None

    def latent_prompt(self, spec: ConceptSpec) -> str:
        return self.anchor or anchor_concept(spec)

    def goal(self, context: StepContext) -> Tensor:
        """ε(x_t, c*, t) [1, C, H, W]."""
        return context.sample.e_c


def anchor_concept(spec: ConceptSpec) -> str:
    """What the target turns into: the training retain of highest certainty, near but different."""
    return spec.train_retains[0].text
