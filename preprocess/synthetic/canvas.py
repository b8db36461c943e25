"""A picture of 178x218 pixels that shapes are painted on.

The *head frame* has its origin in the middle of the face, u to the picture's right and v downwards, in pixels; the
tilt rolls it. A shape is a function of (u, v) that is negative inside and grows by about 1 per pixel, so one clip
gives an anti-aliased mask. Each shape is evaluated only in a box around it: that makes the drawing fast.
Colors are float32 [3], linear in [0, 1]; the picture is planar, float32 [3, H, W].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 218, 178
CENTER_X, CENTER_Y = 89.0, 119.0  # the head frame's origin on an upright head
PIVOT_Y = 150.0  # the head tilts about its chin

Y_GRID, X_GRID = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)


@dataclass(frozen=True)
class Patch:
    """A box of the canvas: views of its `rgb` [3, h, w] and of the head coordinates `u` and `v` [h, w], float32."""

    rgb: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def paint(self, distance: np.ndarray, color: np.ndarray, opacity: float = 1.0, soft: float = 1.2) -> None:
        """Fills the place where `distance` is negative, with a soft edge.

        Args:
            distance: float32 [h, w], in pixels.
            color: float32 [3] or [3, h, w].
            opacity: in [0, 1].
            soft: width of the edge, in pixels.
        """
        self.cover(np.minimum(np.maximum(0.5 - distance * (1 / soft), 0), 1) * opacity, color)

    def cover(self, mask: np.ndarray, color: np.ndarray) -> None:
        """Mixes in `color` ([3] or [3, h, w]) by `mask` [h, w] in [0, 1]."""
        delta = (color if color.ndim == 3 else color[:, None, None]) - self.rgb
        delta *= mask
        self.rgb[...] += delta

    def glow(self, at: tuple[float, float], radii: tuple[float, float], color: np.ndarray, opacity: float) -> None:
        """Paints a soft blob.

        Args:
            at: (u, v) of its middle.
            radii: along u and v, in head coordinates.
            color: float32 [3] or [3, h, w].
            opacity: in [0, 1].
        """
        radius = ((self.u - at[0]) * (1 / radii[0])) ** 2 + ((self.v - at[1]) * (1 / radii[1])) ** 2
        self.cover(np.maximum(1 - radius, 0) ** 2 * opacity, color)


class Canvas:
    """The unfinished picture `rgb` [3, H, W] and the head coordinates `u` and `v` [H, W] of its pixels, float32."""

    def __init__(self, tilt: float) -> None:
        """Prepares an empty picture of a head that is tilted by `tilt` radians."""
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)
        x, y = X_GRID - CENTER_X, Y_GRID - PIVOT_Y
        self.rgb = np.empty((3, HEIGHT, WIDTH), np.float32)
        self.u = x * self.cos + y * self.sin
        self.v = y * self.cos - x * self.sin + (PIVOT_Y - CENTER_Y)

    def patch(self, u: float, v: float, ru: float, rv: float) -> Patch:
        """Returns the box that holds the head-frame rectangle (u ± ru, v ± rv)."""
        v -= PIVOT_Y - CENTER_Y
        x, y = CENTER_X + u * self.cos - v * self.sin, PIVOT_Y + u * self.sin + v * self.cos
        rx = ru * self.cos + rv * abs(self.sin) + 2
        ry = rv * self.cos + ru * abs(self.sin) + 2
        rows = slice(max(int(y - ry), 0), max(int(y + ry) + 1, 0))
        columns = slice(max(int(x - rx), 0), max(int(x + rx) + 1, 0))
        return Patch(self.rgb[:, rows, columns], self.u[rows, columns], self.v[rows, columns])
