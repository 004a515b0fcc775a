"""The instant edit at SD v1.4's size: 32 matrices of 320–1280 × 768, 30 terms of 76 positions, without text encoding.

For comparison, the same edit as published, which computes a left factor and an inverse for each matrix.
"""

from collections.abc import Callable, Iterator
from statistics import median

import torch

from benchmarks.figures import Figure, make_parser, show, time_call
from crce.methods.uce import EditStates, solve

WIDTH, POSITIONS, TERMS, DAMPING, REPEATS = 768, 76, 30, 0.5, 5
LAYERS = (320,) * 5 + (640,) * 5 + (1280,) * 6  # cross-attention layers of SD v1.4, each with K and V


def main() -> None:
    show("instant_edit", __doc__, measure(), make_parser(__doc__).parse_args().keep)


def measure() -> Iterator[Figure]:
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    matrices = {f"{kind}{i}": draw(out, WIDTH) / 28 for i, out in enumerate(LAYERS) for kind in "kv"}
    half = TERMS // 2 * POSITIONS
    alike = torch.full((half,), 1 / POSITIONS)
    rows = EditStates(draw(half, WIDTH), draw(half, WIDTH), alike, draw(half, WIDTH), alike)
    ours = Figure(f"{len(matrices)} matrices, {TERMS} terms", time_repeats(lambda: solve(matrices, rows, DAMPING)))
    yield ours
    published = time_repeats(lambda: solve_as_published(matrices, rows))
    yield Figure("as published", published, f"{median(published) / ours.median:.1f} times as long")


def solve_as_published(matrices: dict[str, torch.Tensor], rows: EditStates) -> dict[str, torch.Tensor]:
    """The published formula, matrix by matrix."""
    c, g, alpha, r, beta = rows.c, rows.g, rows.alpha, rows.r, rows.beta
    edited = {}
    for name, w in matrices.items():
        left = DAMPING * w + (w @ g.T * alpha) @ c + (w @ r.T * beta) @ r
        right = DAMPING * torch.eye(WIDTH) + (c.T * alpha) @ c + (r.T * beta) @ r
        edited[name] = left @ right.inverse()
    return edited


def time_repeats(work: Callable[[], object]) -> tuple[float, ...]:
    """The seconds of each call, after a warm-up call."""
    work()
    return tuple(time_call(work) for _ in range(REPEATS))


if __name__ == "__main__":
    main()
