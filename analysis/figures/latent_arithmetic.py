"""Faces added and subtracted: a − b + c in latent space (paper, section 4 and Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Row:
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


def _image_row(
    context: EvalContext, encoded: Encoded, chosen: np.ndarray, label: str, directions: Sequence[Codes] = ()
) -> Row:
    """a, b, c as images, and a − b + c with the attributes of ``directions``."""
    a, b, c = ([z[row : row + 1] for z in encoded.means] for row in chosen)
    result = decode_codes(context.vlae, add_codes(a, b, c, directions))
    return Row(label, torch.cat([from_array(encoded.images[chosen]), result]), True)


def attribute_rows(
    context: EvalContext, encoded: Encoded, s: str, t: str, kinds: list[np.ndarray], direction: Codes
) -> list[Row]:
    """Two rows for one equation: mean codes of each kind, and three single images."""
    means = [[z[rows].mean(0, keepdim=True) for z in encoded.means] for rows in kinds]
    codes = [*means, combine(*means)]
    decoded = decode_codes(context.vlae, [torch.cat(layer) for layer in zip(*codes, strict=True)])
    rng = np.random.default_rng(SEED)
    chosen = np.array([rng.choice(rows) for rows in kinds])
    return [
        Row(f"{equation(s, t)}\nmean codes of {', '.join(str(len(rows)) for rows in kinds)} images", decoded, False),
        _image_row(context, encoded, chosen, f"{equation(s, t)}\nthree single images", [direction]),
    ]


def image_rows(context: EvalContext, encoded: Encoded, count: int = RANDOM_ROWS) -> list[Row]:
    """Rows of three random images each, as the paper's Figure 4."""
    rng = np.random.default_rng(SEED)
    drawn = [rng.choice(len(encoded), 3, replace=False) for _ in range(count)]
    return [_image_row(context, encoded, chosen, "three random images") for chosen in drawn]


def all_rows(context: EvalContext, encoded: Encoded, names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of ``arithmetic.png``, and the equations left out because their attributes are absent or too rare."""
    rows, left_out = [], []
    for s, t in PAIRS:
        kinds = members(encoded, names, s, t)
        direction = attribute_direction(encoded, list(names).index(t)) if kinds else None
        if kinds is None or direction is None:
            left_out.append(equation(s, t))
        else:
            rows += attribute_rows(context, encoded, s, t, kinds, direction)
    return rows + image_rows(context, encoded), left_out


def attribute_direction(encoded: Encoded, column: int) -> Codes | None:
    """Mean code with an attribute minus mean code without it, on every layer: (1, d_l). None where either is rare."""
    values = encoded.annotations.attributes[:, column]
    present, absent = np.flatnonzero(values == 1), np.flatnonzero(values == 0)
    if min(len(present), len(absent)) < FEWEST:
        return None
    return [(z[present].mean(0) - z[absent].mean(0))[None] for z in encoded.means]


def named_directions(
    encoded: Encoded, names: Sequence[str], wanted: Sequence[str], layers: Sequence[int]
) -> dict[str, list[Tensor]]:
    """Directions of the attributes ``wanted`` that are neither rare nor universal, zero outside ``layers``."""
    found: dict[str, list[Tensor]] = {}
    for name in wanted:
        direction = attribute_direction(encoded, list(names).index(name))
        if direction is not None:
            found[name] = [d if i in layers else torch.zeros_like(d) for i, d in enumerate(direction)]
    return found
