"""UCE: keys and values edited in closed form (Gandikota et al., WACV 2024), and CRCE's lists in the same form.

A term is edited at every position from its first word to the last padding, each with an equal share of the term's
weight; its guide is the state of the anchor, or of the empty prompt, at the same position: attention is over the whole
prompt, so a name whose states all are read as the anchor's is drawn as the anchor. The public script edits only the
last word, but the states after a word carry it too, and the U-Net reads them all. λ is a share of the states' mean
squared length, so that one setting means the same for every text encoder: a state of CLIP is 28 long.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec, Term
from crce.methods.base import ClosedForm, Specs, Tensors
from crce.methods.parameters import keys_values
from crce.models.diffusion import Diffusion

PUBLISHED_DAMPING = 0.5


@dataclass(frozen=True)
class EditStates:
    """Text states that an edit is made of: c [n, d] goes where the guide g [n, d] is, with weight α [n];
    r [m, d] stays, with weight β [m]."""

    c: Tensor
    g: Tensor
    alpha: Tensor
    r: Tensor
    beta: Tensor


def solve(matrices: dict[str, Tensor], states: EditStates, damping: float) -> dict[str, Tensor]:
    """W' = [λW + Σ α (W g) cᵀ + Σ β (W r) rᵀ] [λI + Σ α c cᵀ + Σ β r rᵀ]⁻¹ for every W [out, d], in fp32.

    The right factor, M, is the same for all, and the left one is W M + W Σ α (g − c) cᵀ. So
    W' = W + W Σ α (g − c) (M⁻¹ c)ᵀ: one Cholesky factor for all, and one product for each.
    """
    alpha, beta = states.alpha.unsqueeze(-1), states.beta.unsqueeze(-1)
    system = (states.c * alpha).T @ states.c + (states.r * beta).T @ states.r
    system.diagonal().add_(damping)
    answers = torch.cholesky_solve(states.c.T, torch.linalg.cholesky(system))
    change = ((states.g - states.c) * alpha).T @ answers.T
    return {name: torch.addmm(w.float(), w.float(), change) for name, w in matrices.items()}


@dataclass(frozen=True)
class Uce(ClosedForm):
    """The targets go to the guide, and nothing else is said.

    damping: λ; None means the base's. anchor: the guide; None means the empty prompt.
    """

    damping: float | None = None
    anchor: str | None = None

    def trainable(self, unet: nn.Module) -> list[str]:
        return keys_values(unet)

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        return _edit(model, names, [target_term(spec) for spec in specs], [], self.damping, self.anchor)


class CrceUce(Uce):
    """The targets and all training corefs go to the guide, all training retains stay, each with its certainty."""

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        return crce_uce(model, specs, names, self.damping, self.anchor)


def crce_uce(
    model: Diffusion, specs: Specs, names: list[str], damping: float | None = None, anchor: str | None = None
) -> Tensors:
    """The weights after CRCE-UCE, the instant edit. damping: λ; None means the base's. anchor: see `Uce`."""
    erased = [term for spec in specs for term in (target_term(spec), *spec.train_corefs)]
    return _edit(model, names, erased, [term for spec in specs for term in spec.train_retains], damping, anchor)


class UceAsPublished(ClosedForm):
    """Its public script for an object: the target's last word goes to the empty prompt's first state, λ = 0.5."""

    def trainable(self, unet: nn.Module) -> list[str]:
        return keys_values(unet)

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        c = torch.stack([_last_word(model, spec.target) for spec in specs])
        guide, one = model.embed([""])[:, 0].expand_as(c), torch.ones(len(c)).to(c)
        return solve(model.masters(names), EditStates(c, guide, one, c[:0], one[:0]), PUBLISHED_DAMPING)


def _last_word(model: Diffusion, text: str) -> Tensor:
    """The state [d] of the last token before the end mark."""
    return model.embed([text])[0, len(model.tokenizer(text).input_ids) - 2]


def target_term(spec: ConceptSpec) -> Term:
    return Term(spec.target, "very high")


def _edit(
    model: Diffusion,
    names: list[str],
    gone: list[Term],
    kept: list[Term],
    damping: float | None,
    anchor: str | None,
) -> Tensors:
    states = collect_states(model, gone, kept, anchor)
    return solve(model.masters(names), states, (damping or model.defaults.damping) * mean_square(states))


def mean_square(states: EditStates) -> float:
    """The mean squared length of all states of an edit."""
    return torch.cat([states.c, states.r]).square().sum(-1).mean().item()


def collect_states(model: Diffusion, gone: list[Term], kept: list[Term], anchor: str | None = None) -> EditStates:
    """The states of the terms, a position a row, and of their guide. Raises CrceError for a term that is too long."""
    guide = model.embed([anchor or ""])[:, 1:]
    (c, alpha), (r, beta) = (_states_and_weights(model, part) for part in (gone, kept))
    return EditStates(c, guide.expand(len(gone), -1, -1).flatten(0, 1), alpha, r, beta)


def _states_and_weights(model: Diffusion, terms: list[Term]) -> tuple[Tensor, Tensor]:
    """States [n, d] and weights [n] after the mark at the start, which is the same for all."""
    states = model.embed([t.text for t in terms])[:, 1:] if terms else model.embed([""])[:0, 1:]
    share = torch.tensor([t.weight / states.shape[1] for t in terms]).to(states)
    return states.flatten(0, 1), share.repeat_interleave(states.shape[1])
