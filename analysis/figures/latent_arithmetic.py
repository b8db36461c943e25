"""Faces added and subtracted: a − b + c in latent space (paper, section 4 and Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.figures.tiles import short_label
from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode_codes
from analysis.model.arithmetic import Codes, add_codes, combine
from pipeline.model.pixels import from_array

# (s, t): a has s and t, b has s and not t, c has neither; a − b + c should have t and not s
PAIRS = (
    ("Male", "Pale_Skin"),
    ("Male", "Smiling"),
    ("Male", "Eyeglasses"),
    ("Smiling", "Blond_Hair"),
    ("Eyeglasses", "Mouth_Slightly_Open"),
    ("Pale_Skin", "Black_Hair"),
)
FEWEST = 5  # images of each of the three kinds
RANDOM_ROWS = 4
SEED = 0


class Row(NamedTuple):
    """One row of the picture: what its cells are, and four images (4, C, H, W) in [−1, 1]: a, b, c, a − b + c."""

    label: str
    images: Tensor
    seen: bool
    """Whether a, b, c are images; otherwise they are decoded mean codes."""


def equation(s: str, t: str) -> str:
    """The attribute equation in words."""
    s, t = short_label(s), short_label(t)
    return f"{s} & {t} − {s} & not {t}\n+ not {s} & not {t} → not {s} & {t}"


def members(encoded: Encoded, names: Sequence[str], s: str, t: str) -> list[np.ndarray] | None:
    """Rows of the images that are a, b and c of the pair; None where one of the attributes or kinds is absent."""
    if s not in names or t not in names:
        return None
    has_s, has_t = (encoded.annotations.attributes[:, list(names).index(name)] for name in (s, t))
    kinds = [np.flatnonzero((has_s == x) & (has_t == y)) for x, y in ((1, 1), (1, 0), (0, 0))]
    return kinds if min(map(len, kinds)) >= FEWEST else None


def all_rows(context: EvalContext, encoded: Encoded, names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of ``arithmetic.png``, and the equations left out because their attributes are absent or too rare.

    Each equation has two rows: mean codes of each kind, and three single images. Rows of random images follow, as in
    the paper's Figure 4.
    """
    rows, left_out = [], []
    for s, t in PAIRS:
        kinds = members(encoded, names, s, t)
        direction = attribute_direction(encoded, list(names).index(t)) if kinds else None
        if kinds is None or direction is None:
            left_out.append(equation(s, t))
            continue
        means = [[z[chosen].mean(0, keepdim=True) for z in encoded.means] for chosen in kinds]
        codes = [torch.cat(layer) for layer in zip(*means, combine(*means), strict=True)]
        label = f"{equation(s, t)}\nmean codes of {', '.join(str(len(chosen)) for chosen in kinds)} images"
        rows.append(Row(label, decode_codes(context.vlae, codes), False))
        rng = np.random.default_rng(SEED)
        single = np.array([rng.choice(chosen) for chosen in kinds])
        rows.append(_image_row(context, encoded, single, f"{equation(s, t)}\nthree single images", [direction]))
    rng = np.random.default_rng(SEED)
    drawn = [rng.choice(len(encoded), 3, replace=False) for _ in range(RANDOM_ROWS)]
    return rows + [_image_row(context, encoded, chosen, "three random images") for chosen in drawn], left_out


def _image_row(
    context: EvalContext, encoded: Encoded, chosen: np.ndarray, label: str, directions: Sequence[Codes] = ()
) -> Row:
    """a, b, c as images, and a − b + c with the attributes of ``directions``."""
    a, b, c = ([z[row : row + 1] for z in encoded.means] for row in chosen)
    result = decode_codes(context.vlae, add_codes(a, b, c, directions))
    return Row(label, torch.cat([from_array(encoded.images[chosen]), result]), True)


def attribute_direction(encoded: Encoded, column: int) -> Codes | None:
    """Mean code with an attribute minus mean code without it, on every layer: (1, d_l). None where either is rare."""
    values = encoded.annotations.attributes[:, column]
    present, absent = np.flatnonzero(values == 1), np.flatnonzero(values == 0)
    if min(len(present), len(absent)) < FEWEST:
        return None
    return [(z[present].mean(0) - z[absent].mean(0))[None] for z in encoded.means]
