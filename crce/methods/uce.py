"""UCE: keys and values edited in closed form (Gandikota et al., WACV 2024), and CRCE's lists in the same form."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crce.concepts import ConceptSpec, Term
from crce.diffusion import Diffusion

GUIDE = ""
LAMBDA = 0.5


@dataclass(frozen=True)
class Rows:
    """Text states that an edit is made of: c [n, d] goes where the guide g [n, d] is, with weight α [n];
    r [m, d] stays, with weight β [m]."""

    c: Tensor
    g: Tensor
    alpha: Tensor
    r: Tensor
    beta: Tensor


def solve(matrices: dict[str, Tensor], rows: Rows, damping: float) -> dict[str, Tensor]:
    """W' = [λW + Σ α (W g) cᵀ + Σ β (W r) rᵀ] [λI + Σ α c cᵀ + Σ β r rᵀ]⁻¹ for every W [out, d], in fp32.

    The right factor, M, is the same for all; and since the left one is W M + Σ α W (g − c) cᵀ,
    W' = W + Σ α W (g − c) (M⁻¹ c)ᵀ: one Cholesky factor and two thin products for each matrix.
    """
    weighted = torch.cat([rows.c, rows.r]) * torch.cat([rows.alpha, rows.beta]).unsqueeze(-1)
    system = weighted.T @ torch.cat([rows.c, rows.r])
    system.diagonal().add_(damping)
    moves = (rows.g - rows.c) * rows.alpha.unsqueeze(-1)
    answers = torch.cholesky_solve(rows.c.T, torch.linalg.cholesky(system))
    return {name: torch.addmm(w.float(), w.float() @ moves.T, answers.T) for name, w in matrices.items()}


def uce(model: Diffusion, specs: tuple[ConceptSpec, ...], names: list[str]) -> dict[str, Tensor]:
    """The targets go to the guide, and nothing else is said."""
    return _edited(model, names, rows(model, [_target(spec) for spec in specs], []))


def crce_uce(model: Diffusion, specs: tuple[ConceptSpec, ...], names: list[str]) -> dict[str, Tensor]:
    """The targets and all training corefs go to the guide, all training retains stay, each with its certainty."""
    gone = [term for spec in specs for term in (_target(spec), *spec.train_corefs)]
    return _edited(model, names, rows(model, gone, [term for spec in specs for term in spec.train_retains]))


def _target(spec: ConceptSpec) -> Term:
    return Term(spec.target, "very high")


def rows(model: Diffusion, gone: list[Term], kept: list[Term]) -> Rows:
    """Every term's states at its last word."""
    c, r = (_states(model, part) for part in (gone, kept))
    g = model.embed([GUIDE])[0, :1].expand_as(c)
    alpha, beta = (torch.tensor([t.weight for t in part]).to(c) for part in (gone, kept))
    return Rows(c, g, alpha, r, beta)


def _states(model: Diffusion, terms: list[Term]) -> Tensor:
    if not terms:
        return model.embed([GUIDE])[0, :0]
    last = [len(model.tokenizer(term.text).input_ids) - 2 for term in terms]
    return model.embed([term.text for term in terms])[range(len(terms)), last]


def _edited(model: Diffusion, names: list[str], edit: Rows) -> dict[str, Tensor]:
    parameters: dict[str, nn.Parameter] = dict(model.unet.named_parameters())
    return solve({name: parameters[name].detach() for name in names}, edit, LAMBDA)
