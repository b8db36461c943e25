"""Images arranged on a sheet: labeled rows, sheets side by side, small tiles enlarged.

Letters in shapes: n images, C H W image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.model.pixels import to_rgb
from pipeline.training.previews import contact_sheet

VISIBLE_TILE = 64  # pixels; smaller tiles are enlarged
GAP = 4  # white pixels between the tiles of labeled rows


def enlarged(sheet: Image.Image, tile: int) -> Image.Image:
    """Enlarges a sheet of tiles of ``tile`` pixels, pixel by pixel, until a tile has about 64."""
    factor = max(1, round(VISIBLE_TILE / tile))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def enlarged_sheet(images: Tensor, columns: int) -> Image.Image:
    """Arranges images (n, C, H, W) in [−1, 1] as ``contact_sheet`` does, enlarged until a person can see them."""
    return enlarged(contact_sheet(images, columns), images.shape[-1])


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
        titles: k titles of the columns, or none.
        cell: Height of an image on the sheet, pixels; the width follows from its shape.
        first_apart: Whether a wider gap separates the first column from the others.
        labels_right: Whether the labels stand at the right of the images, which suits long ones.
    """
    text = font(max(12, cell // 6))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    beside = 16 + max(int(measure.multiline_textbbox((0, 0), label, font=text)[2]) for label, _ in rows)
    left = 0 if labels_right else beside
    top = max(24, cell // 4) if titles else 0
    apart = cell // 6 if first_apart else 0
    columns = len(rows[0][1])
    wide = max(1, round(cell * rows[0][1].shape[-1] / rows[0][1].shape[-2]))

    def x(column: int) -> int:
        return left + column * (wide + GAP) + (apart if column else 0)

    width = x(columns) + (beside if labels_right else 0)
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((x(column) + wide / 2, top / 2), title, "black", text, "mm")
    for line, (label, images) in enumerate(rows):
        y = top + line * (cell + GAP)
        if labels_right:
            pen.text((x(columns) + 8, y + cell / 2), label, "black", text, "lm")
        else:
            pen.text((left - 8, y + cell / 2), label, "black", text, "rm", align="right")
        for column, tile in enumerate(to_rgb(images.nan_to_num(1.0))):
            face = Image.fromarray(tile).resize((wide, cell), Image.Resampling.BICUBIC)
            sheet.paste(face, (x(column), y))
    return sheet
