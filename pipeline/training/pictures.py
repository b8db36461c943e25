"""Image tensors as pictures: uint8 arrays and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_uint8(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [−1, 1] as (N, H, W, 3) uint8; one channel becomes gray."""
    scaled = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """(N, C, H, W) in [−1, 1] in rows of ``columns`` with ``gap`` white pixels between."""
    tiles = to_uint8(images)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * (height + gap), column * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return Image.fromarray(sheet)


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG atomically."""
    from pipeline.checkpoint.file import replacing  # noqa: PLC0415 - keeps pictures importable without the model

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
