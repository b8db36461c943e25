"""The report's pictures of images: reconstructions, samples, manifolds, arithmetic, edits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analysis.arithmetic import Row, attribute_direction
from analysis.subject import Encoded, Subject, decode
from pipeline.keyed_noise import Stream, normal
from pipeline.latents import manifold_codes, split_layers
from pipeline.pictures import contact_sheet, to_uint8

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

EDIT_STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
SAMPLES, SAMPLE_SEED = 64, 2


def enlarged(sheet: Image.Image, tile: int) -> Image.Image:
    """Tiles smaller than 64 pixels are enlarged, pixel by pixel, so that a person can see them."""
    factor = max(1, round(64 / tile))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def as_picture(figure: Figure) -> Image.Image:
    """A matplotlib figure as an image, closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def images_to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, C) as (n, C, H, W) float32 in [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstructions(subject: Subject, encoded: Encoded, columns: int = 10, rows: int = 3) -> Image.Image:
    """Held-out images, each above its reconstruction from mean codes."""
    count = min(columns * rows, len(encoded))
    originals = images_to_tensor(encoded.images[:count])
    decoded = decode(subject, [z[:count] for z in encoded.means])
    bands = [t[start : start + columns] for start in range(0, count, columns) for t in (originals, decoded)]
    padded = [torch.cat([b, torch.ones(columns - len(b), *b.shape[1:])]) for b in bands]
    return enlarged(contact_sheet(torch.cat(padded), columns), originals.shape[-1])


def samples(subject: Subject) -> Image.Image:
    """Images decoded from codes drawn from the prior."""
    drawn = normal(torch.arange(SAMPLES), sum(subject.sizes), Stream.PRIOR, SAMPLE_SEED)
    images = decode(subject, split_layers(drawn, subject.sizes))
    return enlarged(contact_sheet(images, 8), images.shape[-1])


def manifold(subject: Subject, layer: int, side: int = 10, seed: int = 0) -> Image.Image:
    """One layer uniform in [−3, 3], the others drawn once from the prior (paper, Figures 2 and 3)."""
    images = decode(subject, manifold_codes(layer, subject.sizes, side, seed))
    return enlarged(contact_sheet(images, side), images.shape[-1])


def arithmetic(rows: Sequence[Row]) -> Image.Image:
    """Columns a, b, c, a − b + c with the equation of each row beside it (paper, Figure 4)."""
    figure, axes = plt.subplots(len(rows), 4, figsize=(4 * 1.25, 1.25 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, tile in zip(line, to_uint8(row.images), strict=True):
            axis.imshow(tile, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        line[0].set_ylabel(row.label, rotation=0, ha="right", va="center", fontsize=8, labelpad=8)
    for axis, title in zip(axes[0], ("a", "b", "c", "a − b + c"), strict=True):
        axis.set_title(title, fontsize=10)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
    return as_picture(figure)


def edits(subject: Subject, encoded: Encoded, names: Sequence[str], most: int = 10) -> Image.Image | None:
    """One held-out image a row, moved along an attribute's direction by −3 … 3 times its length; None without any."""
    rows: list[tuple[str, Tensor]] = []
    for column, name in enumerate(names):
        direction = attribute_direction(encoded, column)
        if direction is None or len(rows) == most:
            continue
        pick = len(rows) % len(encoded)
        steps = torch.tensor(EDIT_STRENGTHS, dtype=torch.float32)[:, None]
        codes = [z[pick : pick + 1] + steps * d for z, d in zip(encoded.means, direction, strict=True)]
        rows.append((name.replace("_", " "), decode(subject, codes)))
    if not rows:
        return None
    figure, axes = plt.subplots(
        len(rows), len(EDIT_STRENGTHS), figsize=(len(EDIT_STRENGTHS) * 1.1, 1.1 * len(rows)), squeeze=False
    )
    for line, (name, images) in zip(axes, rows, strict=True):
        for axis, tile in zip(line, to_uint8(images), strict=True):
            axis.imshow(tile, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for axis, strength in zip(axes[0], EDIT_STRENGTHS, strict=True):
        axis.set_title(f"{strength:+d}" if strength else "as it is", fontsize=9)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
    return as_picture(figure)
