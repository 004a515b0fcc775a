"""Contact sheets: rows of pictures in one PNG, to be looked at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def sheet(images: torch.Tensor, columns: int, path: Path, scale: int = 1) -> None:
    """images [n,3,h,w] in -1…1 → a PNG with `columns` pictures a row."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = -(-len(pixels) // columns)
    full = np.full((rows * columns, *pixels.shape[1:]), 255, np.uint8)
    full[: len(pixels)] = pixels
    _, height, width, _ = full.shape
    grid = (
        full.reshape(rows, columns, height, width, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * height, columns * width, 3)
    )
    image = Image.fromarray(grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.NEAREST).save(path)
