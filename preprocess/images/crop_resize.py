"""Crop and resize, with the arithmetic of torchvision's CenterCrop and Resize(antialias=True).

This module imports torch; only workers import it.
"""

from __future__ import annotations

import numpy as np
import torch

from preprocess.errors import UnreadableImage
from preprocess.shards.manifest import Crop, Resample


def crop_box(crop: Crop, height: int, width: int) -> tuple[int, int, int, int]:
    """The part to cut out of an image: (top, left, height, width).

    Raises:
        UnreadableImage: the image is smaller than the crop; it is never padded.
    """
    if crop.kind == "none":
        return 0, 0, height, width
    if crop.kind == "box":
        left, top, right, bottom = crop.box or (0, 0, width, height)
        if right > width or bottom > height:
            raise UnreadableImage(f"{width} x {height} is smaller than the crop {left},{top},{right},{bottom}")
        return top, left, bottom - top, right - left
    side = min(height, width) if crop.kind == "square" else crop.size or 0
    if side > min(height, width):
        raise UnreadableImage(f"{width} x {height} is smaller than the crop of {side} x {side}")
    # torchvision rounds half to even, so an odd margin of 35 starts at 18 and one of 33 at 16
    return round((height - side) / 2.0), round((width - side) / 2.0), side, side


def resize_batch(images: np.ndarray, height: int, width: int, resample: Resample = "bilinear") -> np.ndarray:
    """Resizes uint8 (n, h, w, C) to uint8 (n, height, width, C), antialiased.

    Channels-last all the way: torch then takes its fast path for bytes, the one torchvision takes too.
    """
    if images.shape[1:3] == (height, width):
        return images
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)  # (n, C, h, w) in channels-last memory
    resized = torch.nn.functional.interpolate(
        batch, size=(height, width), mode=resample, antialias=True, align_corners=False
    )
    return resized.permute(0, 2, 3, 1).contiguous().numpy()
