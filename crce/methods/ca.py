"""Concept Ablation: the target is drawn as an anchor concept is (Kumari et al., ICCV 2023).

    L = ‖ε_θ(x_t, c, t) − ε(x_t, c*, t)‖² on latents x_t of the anchor c*

It is ESD's one pull, elsewhere and to another goal. The bank takes the place of the 1000 pictures of the anchor; and
where the paper's ε is the network in training without a gradient, ours is the frozen one, which the bank holds.
"""

from torch import Tensor

from crce.concepts.spec import ConceptSpec
from crce.methods.losses import StepContext


def anchor_concept(spec: ConceptSpec) -> str:
    """What the target turns into: the training retain of highest certainty, a near and different thing."""
    return spec.train_retains[0].text


def as_anchor(context: StepContext) -> Tensor:
    """ε(x_t, c*, t) [1, C, H, W], which the bank of the anchor's trajectories holds."""
    return context.sample.e_c
