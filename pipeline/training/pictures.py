"""Image tensors as pictures: uint8 arrays and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.model.pixels import to_rgb


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """(N, C, H, W) in [−1, 1] in rows of ``columns`` with ``gap`` white pixels between."""
    tiles = to_rgb(images)
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
    from preprocess.shards.atomic import replace_file  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        picture.save(temporary, format="PNG")
