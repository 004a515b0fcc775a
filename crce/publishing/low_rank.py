"""The best approximation of a matrix or a convolution by two thin ones."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Factors:
    """up [out, r] and down [r, in], for a convolution [out, r, 1, 1] and [r, in, h, w]; lost: the sum of squares that
    they do not hold."""

    up: np.ndarray
    down: np.ndarray
    lost: float


def factorise(weight: np.ndarray, rank: int) -> Factors:
    """The truncated singular value decomposition of weight [out, in] or [out, in, h, w], flattened to [out, in·h·w].

    Its left vectors are the eigenvectors of D Dᵀ (or the right ones of Dᵀ D), which is far smaller than D. A weight of
    a lower rank gets zeros: diffusers mistakes the scale of attention layers where ranks differ.
    """
    from scipy.linalg import eigh

    flat = weight.reshape(len(weight), -1).astype(np.float64)
    wide = flat.shape[1] >= flat.shape[0]
    square = flat @ flat.T if wide else flat.T @ flat
    kept = min(rank, len(square))
    _, vectors = eigh(square, subset_by_index=[len(square) - kept, len(square) - 1])
    up, down = (vectors, vectors.T @ flat) if wide else (flat @ vectors, vectors.T)
    held = np.square(down if wide else up).sum()
    lost = max(float(np.square(flat).sum() - held), 0.0)
    up, down = np.pad(up, ((0, 0), (0, rank - kept))), np.pad(down, ((0, rank - kept), (0, 0)))
    if weight.ndim == 4:
        up, down = up.reshape(len(weight), rank, 1, 1), down.reshape(rank, *weight.shape[1:])
    return Factors(np.ascontiguousarray(up, np.float32), np.ascontiguousarray(down, np.float32), lost)
