"""MACE: closed form, a rank-one layer for each concept, closed form (Lu et al., CVPR 2024).

1. The words around a concept and the padding after it carry it too. For prompts with it, e, and the same ones
   without it, e°, at the positions that both have: W' = argmin Σ ‖W' e − W e°‖² + λ ‖W' − W‖², which is UCE's.
2. The concept's own words: W' + B A, rank one for each concept and matrix, is trained until the picture pays them no
   attention: L = Σ_layers ‖A_layer[pixels of the concept, its words]‖_F. To its words belong the end of the text and
   the paddings after it. A ~ N(0, 1) and B = 0, as a LoRA layer of rank one starts.
3. All in one: W* = argmin Σ_i Σ_e ‖W* e − (W' + B_i A_i) e‖² + λ ‖W* − W'‖² over all states e of i's prompts, so
   W* = W' + Σ_i B_i A_i S_i (λI + Σ_j S_j)⁻¹ with S_i = Σ_e e eᵀ.

Written from these equations. λ is for the sum over 30 prompts, from 10 to 1000 by concept in the paper's settings for
objects; 1000 unless the run or the base's preset says otherwise (`EraseConfig.damping`), in stage 1 and 3 alike.

What differs: no pictures and no segmenter, x_t comes from the frozen latent cache, and a concept's pixels are those
where the frozen model attends to its words. Eight prompts in place of 30; those without the concept have nothing in
its place, where the paper names a more general concept. No captions of other things are preserved (the paper's prior),
every t counts the same, and Adam neither decays weights nor clips gradients.
"""

from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crce.concepts.spec import ConceptSpec
from crce.config import ResolvedConfig
from crce.methods.attention import attention_maps, concept_tokens, token_positions
from crce.methods.base import GradientMethod, Specs, Tensors
from crce.methods.losses import StepContext
from crce.methods.parameters import keys_values
from crce.methods.uce import EditStates, solve
from crce.models.diffusion import Diffusion

PAPERS_PROMPTS = 30  # λ is for their sum, and ours are averaged
THRESHOLD = 0.1  # of the range of the attention, Receler's
TEMPLATES = (
    "{}", "a photo of {}", "a picture of {}", "an image of {}", "a drawing of {}", "a close-up of {}",
    "{} in the background", "{} on a white background",
)  # fmt: skip


@dataclass(frozen=True)
class Mace(GradientMethod):
    """damping: λ, for the sum over the paper's prompts."""

    damping: float = 1000.0

    def trainable(self, unet: nn.Module) -> list[str]:
        return keys_values(unet)

    def start(self, model: Diffusion, specs: Specs, config: ResolvedConfig, names: list[str]) -> Tensors:
        """Stage 1, which stays as it is, and for stage 2 an A of random rows and a B of zeros for each concept."""
        refined = solve(model.masters(names), pair_contexts(model, specs), self.damping / PAPERS_PROMPTS)
        rng = torch.Generator().manual_seed(config.seed)
        return refined | {
            key: tensor.to(w).requires_grad_()
            for spec in specs
            for name, w in refined.items()
            for key, tensor in _init_adapter(spec, name, w, rng).items()
        }

    def replaced(self, model: Diffusion, spec: ConceptSpec, tensors: Tensors) -> Tensors:
        """W' + B A with the adapters of this concept."""
        up, down = _adapter_keys(spec)
        return {name: w + tensors[up + name] @ tensors[down + name] for name, w in _select_refined(tensors).items()}

    def losses(self, context: StepContext) -> Tensors:
        """Stage 2: the attention that the concept's pixels pay to its words, on one of its prompts."""
        prompt = context.rng.choice(_prompts(context.spec))
        model, target, state = context.model, context.spec.target, context.embed(prompt)
        with torch.no_grad(), attention_maps(model.unet) as maps:
            context.predict([state], tuned=False)
        mask, silenced = (
            concept_mask(maps, token_positions(model, prompt, target)),
            concept_tokens(model, prompt, target),
        )
        with attention_maps(model.unet) as maps:
            context.predict([state])
        first, *rest = (_masked_attention(found, mask, silenced).norm() for found in maps)
        return {"target": sum(rest, first)}

    def finish(self, model: Diffusion, specs: Specs, tensors: Tensors) -> Tensors:
        """Stage 3."""
        result = dict(_select_refined(tensors))
        shares = fusion_shares([_second_moment(model, spec) for spec in specs], self.damping / PAPERS_PROMPTS)
        for spec, share in zip(specs, shares, strict=True):
            up, down = _adapter_keys(spec)
            result = {name: w + tensors[up + name] @ (tensors[down + name] @ share) for name, w in result.items()}
        return result


def fusion_shares(squares: list[Tensor], damping: float) -> list[Tensor]:
    """S_i (λI + Σ_j S_j)⁻¹ [d, d]: how much of each adapter works, by where a state lies."""
    first, *rest = squares
    system = sum(rest, first)
    factor = torch.linalg.cholesky(system + damping * torch.eye(len(system)).to(system))
    return [torch.cholesky_solve(square, factor).T for square in squares]


def pair_contexts(model: Diffusion, specs: Specs) -> EditStates:
    """The states around each concept in its prompts, and those at the same places where it is missing."""
    pairs = [_pair_states(model, prompt, template, spec) for spec in specs for template, prompt in _templates(spec)]
    c, g = (torch.cat(part) for part in zip(*pairs, strict=True))
    return EditStates(c, g, torch.full((len(c),), 1 / len(TEMPLATES)).to(c), c[:0], c[:0, 0])


def _pair_states(model: Diffusion, prompt: str, template: str, spec: ConceptSpec) -> tuple[Tensor, Tensor]:
    words = token_positions(model, prompt, spec.target)
    c, g = model.embed([prompt, template.format("").strip()])
    return torch.cat([c[: words[0]], c[words[-1] + 1 :]]), g[: len(g) - len(words)]


def concept_mask(maps: list[Tensor], words: list[int]) -> Tensor:
    """1 where the mean over layers, heads and words is above the threshold [1, 1, side, side], else 0."""
    seen = [_to_map(found[..., words].float().mean((1, 3))) for found in maps]
    side = max(each.shape[-1] for each in seen)
    mean = torch.stack([F.interpolate(each, (side, side), mode="bilinear") for each in seen]).mean(0)
    low, high = mean.aminmax()
    return (mean > low + THRESHOLD * (high - low)).float()


def _masked_attention(found: Tensor, mask: Tensor, words: list[int]) -> Tensor:
    """The probabilities [1, heads, pixels, words] of one layer, 0 outside the mask."""
    side = isqrt(found.shape[2])
    return found[..., words].float() * F.interpolate(mask, (side, side)).reshape(1, 1, -1, 1)


def _to_map(pixels: Tensor) -> Tensor:
    """[1, pixels] to [1, 1, side, side]."""
    return pixels.unflatten(1, (1, isqrt(pixels.shape[1]), -1))


def _second_moment(model: Diffusion, spec: ConceptSpec) -> Tensor:
    """S [d, d], the mean over the concept's prompts."""
    states = model.embed(_prompts(spec)).flatten(0, 1)
    return states.T @ states / len(TEMPLATES)


def _templates(spec: ConceptSpec) -> list[tuple[str, str]]:
    return [(template, template.format(spec.target)) for template in TEMPLATES]


def _prompts(spec: ConceptSpec) -> list[str]:
    return [prompt for _, prompt in _templates(spec)]


def _adapter_keys(spec: ConceptSpec) -> tuple[str, str]:
    """What stands before a weight's name for its B and its A."""
    return f"up/{spec.slug}/", f"down/{spec.slug}/"


def _select_refined(tensors: Tensors) -> Tensors:
    return {name: w for name, w in tensors.items() if "/" not in name}


def _init_adapter(spec: ConceptSpec, name: str, w: Tensor, rng: torch.Generator) -> Tensors:
    up, down = _adapter_keys(spec)
    out, width = w.shape
    return {up + name: torch.zeros(out, 1), down + name: torch.randn(1, width, generator=rng)}
