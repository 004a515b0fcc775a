"""Where the terms lie in the base's own text encoder: distances to the target (Table 2) and a map (Fig. 3).

The paper does not say which vector it measures. Its columns obey Euclid² = 2 (1 − cos), so they are of unit vectors;
ours is the text encoder's state at the end of the text, after the last norm and before CLIP's projection: a diffusion
pipeline ships no projection, and its U-Net reads these states. So on SD v1.4 the figures need not be those of Table 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from crce.concepts.spec import ConceptSpec, Term
from crce.models.diffusion import Diffusion

POINTS = 24  # random points of the ball on the map
_TOO_LONG = dict.fromkeys(("cosine", "euclidean", "x", "y"))


def measure_distances(model: Diffusion, spec: ConceptSpec) -> dict:
    """Cosine and Euclidean distance to the target, and the place on the map, of the target and every term.

    {"terms": [{text, kind, tokens, cosine, euclidean, x, y} …], "limit": tokens, "sphere": {radius, points}}. A term
    of more tokens than the limit has None for its distances and place. Raises CrceError if the target is too long.
    """
    terms, limit = _list_terms(spec), model.tokenizer.model_max_length
    tokens = [count_tokens(model, term.text) for _, term in terms]
    read = [i for i, count in enumerate(tokens) if count <= limit or i == 0]
    found = encode_ends(model, [terms[i][1].text for i in read])
    offsets = found - found[0]
    near = [row for row, i in enumerate(read) if terms[i][0] == "coref" and terms[i][1].split == "train"]
    radii = offsets[near].norm(dim=-1)
    axes = principal_axes(offsets)
    measured = dict(zip(read, _describe(found @ found[0], offsets, axes), strict=True))
    points = sample_ball(radii, found.shape[-1])
    rows = zip(terms, tokens, strict=True)
    return {
        "terms": [
            {"text": term.text, "kind": kind, "tokens": count, **measured.get(i, _TOO_LONG)}
            for i, ((kind, term), count) in enumerate(rows)
        ],
        "limit": limit,
        "sphere": {
            "radius": round(radii.mean().item(), 4) if near else 0.0,
            "points": _rounded(project(points, axes, points.new_zeros(1))),
        },
    }


def list_hardest(model: Diffusion, spec: ConceptSpec) -> tuple[list[str], list[str]]:
    """The corefs, farthest from the target first, and the retains, nearest first: an edit fails at these first."""
    terms = [term for term in measure_distances(model, spec)["terms"] if term["euclidean"] is not None]
    terms.sort(key=lambda term: term["euclidean"])
    corefs, retains = ([term["text"] for term in terms if term["kind"] == kind] for kind in ("coref", "retain"))
    return corefs[::-1], retains


def _list_terms(spec: ConceptSpec) -> list[tuple[str, Term]]:
    corefs, retains = ([(kind, t) for t in part] for kind, part in (("coref", spec.corefs), ("retain", spec.retains)))
    return [("target", Term(spec.target)), *corefs, *retains]


def count_tokens(model: Diffusion, text: str) -> int:
    """Tokens of a text, those that mark its start and end included."""
    return len(model.tokenizer(text).input_ids)


def encode_ends(model: Diffusion, texts: list[str]) -> Tensor:
    """Unit vectors [n, d] of the state at the end of each text. Raises CrceError for one that is too long."""
    states = model.embed(texts)
    return F.normalize(states[range(len(texts)), [count_tokens(model, text) - 1 for text in texts]], dim=-1)


def principal_axes(offsets: Tensor) -> Tensor:
    """The two directions [2, d] in which the offsets [n, d] differ most among each other."""
    # With a row more there are two directions also for a target without terms.
    rows = torch.cat([offsets, torch.zeros_like(offsets[:1])])
    axes = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:2]
    # The sign of a singular vector is arbitrary: ours points to where its largest entry is positive.
    return axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()


def project(offsets: Tensor, axes: Tensor, middle: Tensor) -> Tensor:
    """Points [n, 2] of a map around the target: each as far from it as it truly is, in the direction in which its
    shadow on the axes lies from that of `middle`. (From the target itself, all terms lie on one side.)"""
    return F.normalize((offsets - middle) @ axes.T, dim=-1) * offsets.norm(dim=-1, keepdim=True)


def sample_ball(radii: Tensor, width: int) -> Tensor:
    """Offsets [24, width] in random directions, each 0 to 1 times as long as one of the radii [n], drawn as
    `methods.ball.draw_inside` draws its points; none without radii."""
    rng = torch.Generator().manual_seed(0)
    count = POINTS if len(radii) else 0
    directions = F.normalize(torch.randn(count, width, generator=rng), dim=-1).to(radii)
    drawn = radii[torch.randint(max(len(radii), 1), (count,), generator=rng)]
    return directions * (drawn * torch.rand(count, generator=rng).to(radii)).unsqueeze(-1)


def _describe(cosines: Tensor, offsets: Tensor, axes: Tensor) -> list[dict]:
    columns = cosines.tolist(), offsets.norm(dim=-1).tolist(), project(offsets, axes, offsets.mean(dim=0)).tolist()
    return [
        {"cosine": round(cosine, 4), "euclidean": round(euclidean, 4), "x": round(x, 4), "y": round(y, 4)}
        for cosine, euclidean, (x, y) in zip(*columns, strict=True)
    ]


def _rounded(points: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in point] for point in points.tolist()]
