"""SPEED: an edit in the null space of what must stay (Li et al., ICLR 2026), and CRCE's lists in the same form.

    Δ = argmin Σ α ‖(W + Δ) c − W g‖² + ‖Δ‖²   over all Δ that change nothing for the states that must stay

P projects onto what is orthogonal to all of those. Then Δ = W (A − T) P (P T P + I)⁻¹ with A = Σ α g cᵀ, T = Σ α c cᵀ:
UCE's solution with P c in the place of c. The paper's two constraints, a null space and multipliers, are one P here,
and have the same minimum. c, g and α are UCE's too (every position from the first word on, the empty prompt's states
or the anchor's, as guide), with α brought to a sum of 1. Only V is edited, as in the paper.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.methods.base import ClosedForm, Specs, Tensors
from crce.methods.parameters import values
from crce.methods.uce import EditStates, collect_states, solve, target_term
from crce.models.diffusion import Diffusion

NEGLIGIBLE = 0.1  # mean square of the protected states along a direction that is still free; the states' own is about d
CENTRES = 3
# Kinds of which other concepts are examples: to keep "boat" would be to keep the ship that is erased.
KINDS = frozenset({"boat", "flower", "fruit", "insect"})


@dataclass(frozen=True)
class Speed(ClosedForm):
    """The targets go; of CorefConcept's other concepts those stay whose states the edit would change more than most.

    The paper then adds ten noisy copies of each, off in the direction that W reads least. Their mean square, in
    expectation, is that of the states and of that direction. damping: what ‖Δ‖² weighs, the paper's s. anchor: the
    guide; None means the empty prompt.
    """

    damping: float = 1.0
    anchor: str | None = None

    def trainable(self, unet: nn.Module) -> list[str]:
        return values(unet)

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        edit, shared = (
            collect_states(model, [target_term(spec) for spec in specs], _other_concepts(specs), self.anchor),
            _shared_states(model),
        )
        return {name: self._edit(name, w, edit, shared) for name, w in model.masters(names).items()}

    def _edit(self, name: str, w: Tensor, edit: EditStates, shared: Tensor) -> Tensor:
        kept = _most_changed(w, edit, self.damping)
        free = _free_directions(kept, shared, _least_read_direction(w))
        return _edit_in_null_space({name: w}, edit, self.damping, free)[name]


class CrceNull(Speed):
    """The targets and all training corefs go, by certainty; all training retains stay, whatever the edit would do.

    Their words and end marks stay exactly, the paddings after them but for `NEGLIGIBLE`.
    """

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        going = [term for spec in specs for term in (target_term(spec), *spec.train_corefs)]
        kept = [term for spec in specs for term in spec.train_retains]
        edit = collect_states(model, going, kept, self.anchor)
        free = _free_directions(edit.r, torch.cat([_shared_states(model), *_word_states(model, kept)]))
        return _edit_in_null_space(model.masters(names), edit, self.damping, free)


def _other_concepts(specs: tuple[ConceptSpec, ...]) -> list[Term]:
    """The targets of CorefConcept that are neither going nor hidden from training."""
    from crce.concepts.library import bundled  # reads with pydantic, which a bare GPU machine need not have

    terms = [term for spec in specs for term in (target_term(spec), *spec.corefs, *spec.test_retains)]
    taken = {term.text.casefold() for term in terms}
    others = sorted({s.target for s in bundled().values()} - KINDS)
    return [Term(name) for name in others if name.casefold() not in taken]


def _edit_in_null_space(
    matrices: dict[str, Tensor], edit: EditStates, damping: float, free: Tensor
) -> dict[str, Tensor]:
    """The edit of W, made of what of c lies in the free directions. Raises CrceError if that is nothing."""
    c = edit.c @ free
    if c.norm() < 1e-3 * edit.c.norm():
        raise CrceError("The retains span the target's embedding, so nothing can be erased. Remove some retains.")
    none = {"r": edit.r[:0], "beta": edit.beta[:0]}
    moved = replace(edit, c=c, g=c + edit.g - edit.c, alpha=edit.alpha / edit.alpha.sum(), **none)
    return solve(matrices, moved, damping)


def _free_directions(kept: Tensor, exactly: Tensor, spread: Tensor | float = 0.0) -> Tensor:
    """The projector [d, d] on directions along which `kept` [n, d] has next to nothing, and `exactly` [m, d] nothing.

    spread: what is added to the mean square of `kept` [d, d].
    """
    sizes, directions = torch.linalg.eigh(kept.T @ kept / max(len(kept), 1) + spread)
    directions = directions[:, sizes < NEGLIGIBLE]
    part = exactly @ directions
    rest = torch.eye(part.shape[1]).to(part) - torch.linalg.pinv(part, rtol=1e-4) @ part
    return directions @ rest @ directions.T


def _most_changed(w: Tensor, edit: EditStates, damping: float) -> Tensor:
    """Those of the states r that the edit without protection changes more than their mean: the paper's filter."""
    bare = replace(edit, alpha=edit.alpha / edit.alpha.sum(), r=edit.r[:0], beta=edit.beta[:0])
    change = (edit.r @ (solve({"w": w}, bare, damping)["w"] - w).T).norm(dim=-1)
    return edit.r[change > change.mean()]


def _least_read_direction(w: Tensor) -> Tensor:
    """v vᵀ for the direction v that W [out, d] reads least."""
    v = torch.linalg.eigh(w.T @ w).eigenvectors[:, :1]
    return v @ v.T


def _shared_states(model: Diffusion) -> Tensor:
    """What all prompts share [1 + 3, d]: the start mark, and of the empty prompt's other states the means of its thirds
    (the paper's are k-means)."""
    start, *others = model.embed([""])[0]
    return torch.stack([start, *(part.mean(0) for part in torch.stack(others).tensor_split(CENTRES))])


def _word_states(model: Diffusion, terms: list[Term]) -> list[Tensor]:
    """Of each term the states of its words and its end mark."""
    ends = [len(model.tokenizer(t.text).input_ids) for t in terms]
    return [model.embed([t.text])[0, 1:end] for t, end in zip(terms, ends, strict=True)]
