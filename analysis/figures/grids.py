"""The report's pictures of images: reconstructions, samples, manifolds, arithmetic, edits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from analysis.figures.latent_arithmetic import Row, attribute_direction
from analysis.inputs.context import Encoded, EvalContext, decode
from analysis.metrics.memorization import nearest, pixel_features, prior_samples, stored_features
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import manifold_codes, split_layers
from pipeline.model.pixels import from_array, to_rgb
from pipeline.training.pictures import contact_sheet

EDIT_STRENGTHS = (-3, -2, -1, 0, 1, 2, 3)
SAMPLES, SAMPLE_SEED = 64, 2
TRAVERSAL_STEPS = 7
MOST_TRAVERSALS = 16  # rows; a layer may have more numbers
INTERPOLATION_STEPS = 9


def enlarged(sheet: Image.Image, tile: int) -> Image.Image:
    """Tiles smaller than 64 pixels are enlarged, pixel by pixel, so that a person can see them."""
    factor = max(1, round(64 / tile))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def reconstructions(subject: EvalContext, encoded: Encoded, columns: int = 10, rows: int = 3) -> Image.Image:
    """Held-out images, each above its reconstruction from mean codes."""
    count = min(columns * rows, len(encoded))
    originals = from_array(encoded.images[:count])
    decoded = decode(subject, [z[:count] for z in encoded.means])
    bands = [t[start : start + columns] for start in range(0, count, columns) for t in (originals, decoded)]
    padded = [torch.cat([b, torch.ones(columns - len(b), *b.shape[1:])]) for b in bands]
    return enlarged(contact_sheet(torch.cat(padded), columns), originals.shape[-1])


def samples(subject: EvalContext) -> Image.Image:
    """Images decoded from codes drawn from the prior."""
    drawn = normal(torch.arange(SAMPLES), sum(subject.sizes), Stream.PRIOR, SAMPLE_SEED)
    images = decode(subject, split_layers(drawn, subject.sizes))
    return enlarged(contact_sheet(images, 8), images.shape[-1])


def manifold(subject: EvalContext, layer: int, side: int = 10, seed: int = 0) -> Image.Image:
    """One layer uniform in [−3, 3], the others drawn once from the prior (paper, Figures 2 and 3)."""
    images = decode(subject, manifold_codes(layer, subject.sizes, side, seed))
    return enlarged(contact_sheet(images, side), images.shape[-1])


def side_by_side(sheets: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Sheets of one height in one picture, each under its title."""
    gap, top = 16, 26
    joined = Image.new("RGB", (sum(s.width + gap for s in sheets) - gap, sheets[0].height + top), "white")
    pen, left = ImageDraw.Draw(joined), 0
    for sheet, title in zip(sheets, titles, strict=True):
        pen.text((left + sheet.width / 2, top / 2), title, "black", _font(15), "mm")
        joined.paste(sheet, (left, top))
        left += sheet.width + gap
    return joined


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own font: it is there wherever matplotlib is, and has − and →."""
    return ImageFont.truetype(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf", size)


def labelled_rows(rows: Sequence[tuple[str, Tensor]], titles: Sequence[str], cell: int = 96) -> Image.Image:
    """Rows of images (k, C, H, W), ``cell`` pixels a side, with a label each, under k titles."""
    gap, font = 4, _font(13)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = 16 + max(int(measure.multiline_textbbox((0, 0), label, font=font)[2]) for label, _ in rows)
    top = 26
    size = (left + len(titles) * (cell + gap), top + len(rows) * (cell + gap))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((left + column * (cell + gap) + cell / 2, top / 2), title, "black", font, "mm")
    for line, (label, images) in enumerate(rows):
        y = top + line * (cell + gap)
        pen.text((left - 8, y + cell / 2), label, "black", font, "rm", align="right")
        for column, tile in enumerate(to_rgb(images)):
            face = Image.fromarray(tile).resize((cell, cell), Image.Resampling.BICUBIC)
            sheet.paste(face, (left + column * (cell + gap), y))
    return sheet


def arithmetic(rows: Sequence[Row]) -> Image.Image:
    """Columns a, b, c, a − b + c with the equation of each row beside it (paper, Figure 4)."""
    return labelled_rows([(row.label, row.images) for row in rows], ("a", "b", "c", "a − b + c"), 112)


def edits(subject: EvalContext, encoded: Encoded, names: Sequence[str], most: int = 10) -> Image.Image | None:
    """One held-out image a row, moved along an attribute's direction by −3 … 3 times its length; None without any."""
    rows: list[tuple[str, Tensor]] = []
    for column, name in enumerate(names):
        direction = attribute_direction(encoded, column)
        if direction is None or len(rows) == most:
            continue
        pick = len(rows) % len(encoded)
        code = [z[pick : pick + 1] for z in encoded.means]
        rows.append((name.replace("_", " "), edited(subject, code, direction)))
    return edit_picture(rows) if rows else None


def edited(subject: EvalContext, code: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """Images (7, C, H, W): a code (1, d_l) moved along a direction (1, d_l) by EDIT_STRENGTHS times its length."""
    steps = torch.tensor(EDIT_STRENGTHS, dtype=torch.float32)[:, None]
    return decode(subject, [z + steps * d for z, d in zip(code, direction, strict=True)])


def edit_picture(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Rows of ``edited`` images with a label each."""
    return labelled_rows(rows, [f"{strength:+d}" if strength else "as it is" for strength in EDIT_STRENGTHS])


def typical(encoded: Encoded) -> int:
    """Row of the image whose code is nearest to the mean code."""
    z = torch.cat(encoded.means, dim=1)
    return int((z - z.mean(0)).pow(2).sum(1).argmin())


def farthest(encoded: Encoded, row: int, among: int = 200) -> int:
    """Row of the image, of the first ``among``, whose code is farthest from that of ``row``."""
    z = torch.cat(encoded.means, dim=1)
    return int((z[:among] - z[row]).pow(2).sum(1).argmax())


def traversals(subject: EvalContext, encoded: Encoded, layer: int) -> Image.Image:
    """Each number of one layer's code of a typical image from −3 to 3, the largest change of the picture first."""
    dim, row = subject.sizes[layer], typical(encoded)
    steps = torch.linspace(-3, 3, TRAVERSAL_STEPS)
    codes = [z[row].expand(dim * TRAVERSAL_STEPS, -1).clone() for z in encoded.means]
    unit = torch.arange(dim).repeat_interleave(TRAVERSAL_STEPS)
    codes[layer][torch.arange(len(unit)), unit] = steps.repeat(dim)
    lines = decode(subject, codes).unflatten(0, (dim, TRAVERSAL_STEPS))
    change = (lines[:, 1:] - lines[:, :-1]).abs().mean((1, 2, 3, 4))
    order = change.argsort(descending=True).tolist()[:MOST_TRAVERSALS]
    titles = [f"{value:+.0f}" if value else "0" for value in steps.tolist()]
    return labelled_rows([(f"number {i}", lines[i]) for i in order], titles, 72)


def interpolated(a: Sequence[Tensor], b: Sequence[Tensor], layers: Sequence[int]) -> list[Tensor]:
    """Codes (INTERPOLATION_STEPS, d_l) from a to b, (1, d_l) each, on ``layers``; the others stay a's."""
    share = torch.linspace(0, 1, INTERPOLATION_STEPS)[:, None]
    return [x + share * (y - x) * (i in layers) for i, (x, y) in enumerate(zip(a, b, strict=True))]


def interpolation_rows(subject: EvalContext, a: Sequence[Tensor], b: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    """From a to b, codes (1, d_l): on all layers, then on each alone."""
    depth = len(subject.sizes)
    ways = [("all layers", list(range(depth))), *((f"layer {layer}", [layer]) for layer in range(depth))]
    return [(label, decode(subject, interpolated(a, b, layers))) for label, layers in ways]


def interpolations(subject: EvalContext, encoded: Encoded) -> Image.Image:
    """From one held-out image to another that is as different as can be."""
    pair = (0, farthest(encoded, 0))
    a, b = ([z[row : row + 1] for z in encoded.means] for row in pair)
    return interpolation_picture(subject, a, b)


def interpolation_picture(subject: EvalContext, a: Sequence[Tensor], b: Sequence[Tensor]) -> Image.Image:
    """From a to b, codes (1, d_l): columns are the share of b."""
    titles = [f"{100 * share:.0f} %" for share in np.linspace(0, 1, INTERPOLATION_STEPS)]
    return labelled_rows(interpolation_rows(subject, a, b), titles)


def nearest_training_images(subject: EvalContext, train: np.ndarray, columns: int = 10, rows: int = 2) -> Image.Image:
    """Samples from the prior, each above the image of ``train``, uint8 (n, H, W, C), nearest to it in pixels."""
    drawn = prior_samples(subject, columns * rows)
    _, which = nearest(pixel_features(drawn), stored_features(train))
    neighbors = from_array(train[which])
    bands = [t[start : start + columns] for start in range(0, len(drawn), columns) for t in (drawn, neighbors)]
    return enlarged(contact_sheet(torch.cat(bands), columns), drawn.shape[-1])
