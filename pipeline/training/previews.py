"""Pictures made during training: reconstructions, layer swaps, and one manifold per layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from pipeline.data.loader import IndexedLoader
from pipeline.model.latents import manifold_codes, replace_layer
from pipeline.model.pixels import to_float, to_rgb
from pipeline.model.vlae import VLAE
from preprocess.shards.atomic import replace_file

RECONSTRUCTIONS = 24
COLUMNS = 8
SIDE = 8
"""Cells on each side of a manifold."""


def contact_sheet(images: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Arranges images in rows, with white gaps and no border.

    Args:
        images: (n, C, H, W) in [−1, 1], C = 1 or 3. The last row is filled up with white.
        columns: Images in a row.
        gap: White pixels between two images.
    """
    blank = images.new_ones(-len(images) % columns, *images.shape[1:])
    full = torch.cat([images, blank])
    if len(full) == 1:  # make_grid puts no border around a single image
        return Image.fromarray(to_rgb(full)[0])
    grid = make_grid(full, nrow=columns, padding=gap, pad_value=1.0)
    inner = grid[:, gap : grid.shape[1] - gap, gap : grid.shape[2] - gap]
    return Image.fromarray(to_rgb(inner[None])[0])


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG atomically, and its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=3)  # a third of the time for 6 % more bytes


@torch.no_grad()
def draw_previews(vlae: VLAE, loader: IndexedLoader, seed: int) -> dict[str, Image.Image]:
    """Draws what the model does at present.

    Args:
        vlae: The model, in eval mode.
        loader: Of the images to reconstruct.
        seed: Seed of the run; the manifolds are the same at every step.

    Returns:
        Pictures by name. ``reconstructions``: images, each above its reconstruction from mean codes. ``swaps``: the
        first image with one layer of each other image, a row for each layer, below the other images.
        ``manifold_layer{l}``: see ``manifold_codes``.
    """
    images = to_float(loader.load(np.arange(min(RECONSTRUCTIONS, loader.samples))).images)
    codes = [q.mean for q in vlae.encode(images)]
    pictures = {"reconstructions": _reconstructions(images, vlae.decode(codes))}
    if len(images) > 1:
        pictures["swaps"] = _swaps(vlae, images[: COLUMNS + 1], [z[: COLUMNS + 1] for z in codes])
    for layer in range(len(vlae.latent_sizes)):
        cells = [z.to(loader.device) for z in manifold_codes(layer, vlae.latent_sizes, SIDE, seed)]
        pictures[f"manifold_layer{layer}"] = contact_sheet(vlae.decode(cells), SIDE)
    return pictures


def _reconstructions(images: Tensor, output: Tensor) -> Image.Image:
    """Arranges rows of images, each above the row of their reconstructions."""
    columns = min(COLUMNS, len(images))
    rows = [part[start : start + columns] for start in range(0, len(images), columns) for part in (images, output)]
    return contact_sheet(torch.cat(rows), columns)


def _swaps(vlae: VLAE, images: Tensor, codes: list[Tensor]) -> Image.Image:
    """Decodes the first image with one layer of each other image: a row for each layer, top layer first."""
    others = len(images) - 1
    own = [z[:1].expand(others, -1) for z in codes]
    rows = [vlae.decode(replace_layer(own, [z[1:] for z in codes], layer)) for layer in reversed(range(len(codes)))]
    own_picture, blank = vlae.decode([z[:1] for z in codes]), torch.ones_like(images[:1])
    first_column = [images[:1], own_picture, *[blank] * (len(codes) - 1)]
    cells = [cell for first, row in zip(first_column, [images[1:], *rows], strict=True) for cell in (first, row)]
    return contact_sheet(torch.cat(cells), others + 1)
