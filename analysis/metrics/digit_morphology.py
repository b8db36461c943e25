"""Stroke thickness and slant of digits, measured from the picture as Morpho-MNIST defines them.

Castro et al. 2019 (Morpho-MNIST, section 2): the digit is enlarged four times and binarised at half its range; its
thickness is twice the mean distance to the background along the skeleton, its slant the angle of the shear that its
second moments show. Ours differs in one thing: the skeleton is where the distance map has a ridge (its slope, 1
everywhere else, falls below RIDGE), not scikit-image's medial axis, which saves that dependency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from scipy import ndimage

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded
from analysis.probes.dataset import Target, targets

ENLARGED = 4
RIDGE = 0.7
NAMES = ("stroke_thickness", "slant")


def thickness(image: np.ndarray) -> float:
    """Mean stroke thickness in pixels of a light digit (H, W) on black; NaN for an empty image."""
    large = cast(np.ndarray, ndimage.zoom(image.astype(np.float32), ENLARGED, order=3))
    low, high = float(large.min()), float(large.max())
    if high <= low:
        return float("nan")
    ink = np.pad(large >= (low + high) / 2, 1)  # a stroke that touches the edge of the picture ends there
    distance = cast(np.ndarray, ndimage.distance_transform_edt(ink))
    rise, run = np.gradient(distance)
    skeleton = ink & (np.hypot(rise, run) < RIDGE)
    if not skeleton.any():
        return float("nan")
    # the distance is to the next background pixel's center, half a pixel beyond the edge of the stroke
    return float(2 * (distance[skeleton].mean() - 0.5) / ENLARGED)


def slant(image: np.ndarray) -> float:
    """Slant in radians of a digit (H, W), positive where it leans to the right; NaN where it has no height."""
    weight = image.astype(float)
    total = weight.sum()
    if total == 0:
        return float("nan")
    y, x = np.indices(weight.shape)
    dy, dx = y - (weight * y).sum() / total, x - (weight * x).sum() / total
    height = (weight * dy * dy).sum()
    return float(np.arctan(-(weight * dx * dy).sum() / height)) if height > 0 else float("nan")


def digit_morphology(images: np.ndarray) -> np.ndarray:
    """NAMES of uint8 (n, H, W, 1): (n, 2), NaN where there is nothing to measure."""
    return np.array([[thickness(image[..., 0]), slant(image[..., 0])] for image in images]).reshape(-1, len(NAMES))


def all_targets(context: EvalContext, encoded: Encoded) -> Iterator[Target]:
    """What held-out images are annotated with, and for labelled gray pictures (digits) their strokes."""
    manifest = context.shards.manifest
    yield from targets(encoded, manifest.attribute_names, manifest.factor_names)
    if encoded.images.shape[3] == 1 and (encoded.annotations.label >= 0).any():
        for name, values in zip(NAMES, digit_morphology(encoded.images).T, strict=True):
            yield Target("factor", name, values)
