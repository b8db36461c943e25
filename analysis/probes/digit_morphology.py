"""Stroke thickness and slant of digits, measured from the picture as Morpho-MNIST defines them.

Castro et al. 2019 (Morpho-MNIST, section 2): the digit is enlarged four times and thresholded at half its range. Its
thickness is twice the mean distance to the background along the skeleton; its slant is the angle of the shear that
its second moments show. One thing differs: the skeleton is the ridge of the distance map (where its slope, elsewhere
1, falls below RIDGE), not scikit-image's medial axis, which would be one more dependency.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from scipy import ndimage

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
    """Measures NAMES on uint8 images (n, H, W, 1): (n, 2) float, NaN where nothing can be measured."""
    return np.array([[thickness(image[..., 0]), slant(image[..., 0])] for image in images]).reshape(-1, len(NAMES))
