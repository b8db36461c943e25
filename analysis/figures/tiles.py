"""Images arranged on a sheet: labeled rows, sheets side by side, small tiles enlarged.

Letters in shapes: n images, C H W image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.model.pixels import to_rgb
from pipeline.training.previews import contact_sheet

VISIBLE_TILE = 64  # pixels; smaller tiles are enlarged
GAP = 4  # white pixels between the tiles of labeled rows


def enlarged_sheet(images: Tensor, columns: int) -> Image.Image:
    """Arranges images (n, C, H, W) in [−1, 1] as ``contact_sheet`` does, small ones enlarged pixel by pixel."""
    sheet = contact_sheet(images, columns)
    factor = max(1, round(VISIBLE_TILE / images.shape[-1]))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def pairs_sheet(above: Tensor, below: Tensor, columns: int = 10) -> Image.Image:
    """Arranges images (n, C, H, W) in [−1, 1] in rows, each above the one of ``below`` that belongs to it."""
    bands = [part for pair in zip(above.split(columns), below.split(columns), strict=True) for part in pair]
    filled = [torch.cat([band, band.new_ones(columns - len(band), *band.shape[1:])]) for band in bands]
    return enlarged_sheet(torch.cat(filled), columns)


def data_uri(picture: Image.Image, quality: int = 88) -> str:
    """Encodes a picture as a WebP data URI: a tenth of the size of its PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def short_label(name: str, width: int = 40) -> str:
    """A name of the data set as a label of at most ``width`` characters, without underscores."""
    text = " ".join(name.replace("_", " ").split())
    return text if len(text) <= width else text[: width - 1] + "…"


@lru_cache(maxsize=8)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Loads the font that comes with matplotlib; it has − and →."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def side_by_side(sheets: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Puts sheets of one height side by side, each below its title."""
    gap, top = 16, 26
    joined = Image.new("RGB", (sum(s.width + gap for s in sheets) - gap, sheets[0].height + top), "white")
    pen, left = ImageDraw.Draw(joined), 0
    for sheet, title in zip(sheets, titles, strict=True):
        pen.text((left + sheet.width / 2, top / 2), title, "black", font(15), "mm")
        joined.paste(sheet, (left, top))
        left += sheet.width + gap
    return joined


def labeled_rows(
    rows: Sequence[tuple[str, Tensor]],
    titles: Sequence[str] = (),
    cell: int = 96,
    first_apart: bool = False,
    labels_right: bool = False,
) -> Image.Image:
    """Draws rows of images, each beside its label.

    Args:
        rows: (label, images (k, C, H, W) in [−1, 1]); every row has the same k. An image of NaN leaves its cell empty.
        titles: Of the k columns, or none.
        cell: Height of an image on the sheet, pixels; the width follows from its shape.
        first_apart: Whether a wider gap separates the first column from the others.
        labels_right: Whether the labels stand at the right of the images, which suits long ones.
    """
    text = font(max(12, cell // 6))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    beside = 16 + max(int(measure.multiline_textbbox((0, 0), label, font=text)[2]) for label, _ in rows)
    top = max(24, cell // 4) if titles else 0
    columns, _, height, width = rows[0][1].shape
    wide = max(1, round(cell * width / height))
    left = [(0 if labels_right else beside) + column * (wide + GAP) for column in range(columns + 1)]
    if first_apart:
        left[1:] = [x + cell // 6 for x in left[1:]]
    label_x, anchor, side = (left[-1] + 8, "lm", "left") if labels_right else (left[0] - 8, "rm", "right")
    sheet = Image.new("RGB", (left[-1] + (beside if labels_right else 0), top + len(rows) * (cell + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for x, title in zip(left, titles, strict=False):
        pen.text((x + wide / 2, top / 2), title, "black", text, "mm")
    for line, (label, images) in enumerate(rows):
        y = top + line * (cell + GAP)
        pen.text((label_x, y + cell / 2), label, "black", text, anchor, align=side)
        for x, tile in zip(left, to_rgb(images.nan_to_num(1.0)), strict=False):
            sheet.paste(Image.fromarray(tile).resize((wide, cell), Image.Resampling.BICUBIC), (x, y))
    return sheet
