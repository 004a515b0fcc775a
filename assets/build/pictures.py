"""The drawings as tensors, and the augmentations that leave a drawing a drawing."""

import numpy as np
import torch
import torch.nn.functional as F

from .common import build_dir
from .sources import HELD_OUT, PLAIN


def drawings(styles: str = "coloured") -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Images uint8 [n,3,64,64] and their columns labels, leaves, styles; "coloured", "plain" or "held out"."""
    data = np.load(build_dir() / "drawings.npz")
    held_out, plain = np.isin(data["styles"], HELD_OUT), np.isin(data["styles"], PLAIN)
    chosen = {"coloured": ~held_out & ~plain, "plain": plain, "held out": held_out}[styles]
    images = torch.from_numpy(data["images"][chosen]).permute(0, 3, 1, 2).contiguous()
    return images, {k: data[k][chosen] for k in ("labels", "leaves", "styles")}


def floats(images: torch.Tensor) -> torch.Tensor:
    """uint8 0…255 → float -1…1"""
    return images.float() / 127.5 - 1


def shift(x: torch.Tensor, pixels: int) -> torch.Tensor:
    """Move the whole batch by up to `pixels`, filling with white. x [b,3,h,w]"""
    dy, dx = torch.randint(0, 2 * pixels + 1, (2,)).tolist()
    padded = F.pad(x, [pixels] * 4, value=1.0)
    return padded[..., dy : dy + x.shape[-2], dx : dx + x.shape[-1]]


def affine(x: torch.Tensor, turn: float = 0.2, zoom: float = 0.2, move: float = 0.12) -> torch.Tensor:
    """Each picture flipped or not, turned, zoomed and moved a little, on white. x [b,3,h,w]"""
    b = len(x)
    angle = (torch.rand(b) * 2 - 1) * turn
    size = 1 + (torch.rand(b) * 2 - 1) * zoom
    flip = torch.where(torch.rand(b) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    offset = (torch.rand(b, 2) * 2 - 1) * move
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, offset[:, 0]], 1), torch.stack([sin * flip, cos, offset[:, 1]], 1)], 1
    ).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x - 1, grid, align_corners=False) + 1


def recolour(x: torch.Tensor, strength: float = 0.15) -> torch.Tensor:
    """Each picture's colours mixed and brightened a little; white stays white. x [b,3,h,w]"""
    mix = torch.eye(3) + strength * torch.randn(len(x), 3, 3)
    mix = (mix / mix.sum(2, keepdim=True)).to(x)
    gain = (1 + strength * torch.randn(len(x), 1, 1, 1)).to(x)
    return (1 + gain * torch.einsum("bij,bjhw->bihw", mix, x - 1)).clamp(-1, 1)


def soften(x: torch.Tensor) -> torch.Tensor:
    """Half of the pictures blurred by scaling down and up again, as soft drawings look. x [b,3,64,64]"""
    size = int(torch.randint(14, 48, ()))
    soft = F.interpolate(F.interpolate(x, size=size, mode="area"), size=x.shape[-1], mode="bilinear")
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, soft, x)


def outline(x: torch.Tensor) -> torch.Tensor:
    """A quarter of the pictures with a dark line around their figure, one in ten in greys. x [b,3,64,64]"""
    figure = (x.amin(1, keepdim=True) < 0.9).float()
    line = F.max_pool2d(figure, 3, 1, 1) + F.max_pool2d(1 - figure, 3, 1, 1) - 1
    chance = torch.rand(len(x), 1, 1, 1, device=x.device)
    x = torch.where(chance < 0.25, x * (1 - line) - line, x)
    return torch.where(torch.rand_like(chance) < 0.1, x.mean(1, keepdim=True).expand_as(x), x)
