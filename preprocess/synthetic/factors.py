"""The twenty independent factors of a drawn face, and the CelebA attributes that follow from them.

Factors are sampled by Latin hypercubes: each block of `BLOCK` images has one value of each factor in each stratum. So
even a small set covers the ranges evenly, and image `index` does not depend on the number of images drawn. Successive
images share the personal factors (`Factor.personal`): `IMAGES_PER_IDENTITY` images show one person.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

Factors = Mapping[str, float]

BLOCK = 256  # images per Latin hypercube
IMAGES_PER_IDENTITY = 4  # few, so that the personal factors stay evenly spread in small sets; divides BLOCK


class Factor(NamedTuple):
    """One independent cause of variation, uniform in [low, high]."""

    name: str  # of the column in factors.csv
    low: float
    high: float
    share: float | None = None  # P(1) of a binary factor; None for a uniform one
    personal: bool = False  # whether all images of one person share it


FACTORS: tuple[Factor, ...] = (
    Factor("light_direction", -1, 1),  # lit from the left .. from the right
    Factor("brightness", 0, 1),  # under- .. overexposed
    Factor("white_balance", -1, 1),  # bluish .. reddish
    Factor("background", 0, 1),  # dark .. pale
    Factor("background_hue", 0, 1),  # green .. blue .. red
    Factor("skin_tone", 0, 1, personal=True),  # pale .. dark
    Factor("hair_color", 0, 1),  # black .. brown .. blond
    Factor("hair_length", 0, 1),  # above the ears .. on the shoulders
    Factor("face_width", 0, 1, personal=True),  # narrow .. wide
    Factor("eye_distance", 0, 1, personal=True),  # close .. far apart
    Factor("eye_size", 0, 1, personal=True),  # narrow .. large
    Factor("nose", 0, 1, personal=True),  # small .. big
    Factor("brow", 0, 1, personal=True),  # thin .. bushy
    Factor("masculinity", 0, 1, personal=True),  # tapered jaw, red lips, lashes .. square jaw, bare lips
    Factor("beard", 0, 1),  # none .. stubble .. full
    Factor("glasses", 0, 1, share=0.4),  # without, with
    Factor("yaw", -1, 1),  # turned to the picture's left .. right
    Factor("tilt", -1, 1),  # rolled anticlockwise .. clockwise
    Factor("smile", -1, 1),  # corners of the mouth down .. up
    Factor("open_mouth", 0, 1),  # closed .. wide open
)
FACTOR_NAMES: tuple[str, ...] = tuple(factor.name for factor in FACTORS)

# colors at some values of a color factor; between them the color is interpolated linearly
Scale = tuple[tuple[float, tuple[float, float, float]], ...]
SKIN: Scale = ((0.0, (1.0, 0.87, 0.79)), (0.5, (0.84, 0.62, 0.47)), (1.0, (0.36, 0.22, 0.15)))
HAIR: Scale = ((0.0, (0.06, 0.05, 0.06)), (0.5, (0.42, 0.24, 0.12)), (1.0, (0.95, 0.80, 0.45)))
HUES: Scale = ((0.0, (0.55, 1.0, 0.62)), (0.5, (0.60, 0.74, 1.0)), (1.0, (1.0, 0.58, 0.62)))


def rgb(*channels: float) -> np.ndarray:
    """Returns a color as float32 [3]."""
    return np.array(channels, np.float32)


def blend(stops: Scale, at: float) -> np.ndarray:
    """Returns the color at position `at` of a piecewise linear scale: float32 [3]."""
    positions, colors = zip(*stops, strict=True)
    return np.array([np.interp(at, positions, channel) for channel in zip(*colors, strict=True)], np.float32)


def identity_of(index: int) -> int:
    """Returns the person on image `index` (from 0); persons are numbered from 1, as in CelebA."""
    return index // IMAGES_PER_IDENTITY + 1


@lru_cache(maxsize=4)
def _hypercube(seed: int, block: int) -> np.ndarray:
    """Returns stratified uniform numbers in [0, 1) for one block: float64 [BLOCK, len(FACTORS)]."""
    rng = np.random.default_rng((seed, block))
    columns = []
    for factor in FACTORS:
        repeats = IMAGES_PER_IDENTITY if factor.personal else 1
        strata = BLOCK // repeats
        column = (rng.permutation(strata) + rng.random(strata)) / strata
        columns.append(np.repeat(column, repeats))
    return np.stack(columns, axis=1)


def sample_factors(seed: int, index: int) -> dict[str, float]:
    """Returns all factors of image `index` (from 0) of the data set `seed`, in the order of `FACTORS`.

    They are rounded to six decimals, so that `factors.csv` holds the exact values.
    """
    row = _hypercube(seed, index // BLOCK)[index % BLOCK].tolist()
    return {
        name: round(low + (high - low) * uniform, 6) if share is None else float(uniform < share)
        for (name, low, high, share, _), uniform in zip(FACTORS, row, strict=True)
    }


def derive_attributes(factors: Factors) -> dict[str, bool]:
    """Returns the CelebA attributes that a drawn face shows, in CelebA's order: thresholds on its factors."""
    return {
        "5_o_Clock_Shadow": 0.25 <= factors["beard"] < 0.6,
        "Big_Nose": factors["nose"] > 0.6,
        "Black_Hair": factors["hair_color"] < 0.3,
        "Blond_Hair": factors["hair_color"] >= 0.65,
        "Brown_Hair": 0.3 <= factors["hair_color"] < 0.65,
        "Bushy_Eyebrows": factors["brow"] > 0.6,
        "Chubby": factors["face_width"] > 0.7,
        "Eyeglasses": factors["glasses"] > 0.5,
        "High_Cheekbones": factors["smile"] > 0.3,
        "Male": factors["masculinity"] > 0.5,
        "Mouth_Slightly_Open": factors["open_mouth"] > 0.3,
        "Narrow_Eyes": factors["eye_size"] < 0.3,
        "No_Beard": factors["beard"] < 0.25,
        "Oval_Face": factors["face_width"] < 0.4,
        "Pale_Skin": factors["skin_tone"] < 0.25,
        "Smiling": factors["smile"] > 0.0,
        "Wearing_Lipstick": factors["masculinity"] < 0.35,
    }
