"""Conversions between uint8 pixels and the model's float32 values in [−1, 1]. Nothing else converts them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Scales uint8 pixels to the model's range.

    Args:
        images: uint8, any shape and memory format, on any device.

    Returns:
        float32 in [−1, 1], of the same shape, memory format and device.
    """
    return images.to(torch.float32).mul_(1 / 127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Rounds the model's values to pixels.

    Args:
        images: Floating point, any shape, on any device. Values outside [−1, 1] are clamped.

    Returns:
        uint8 in 0 … 255, of the same shape and device.
    """
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_array(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Converts stored images to the model's input.

    Args:
        images: (N, H, W, C) uint8.
        device: Device of the result.

    Returns:
        (N, C, H, W) float32 in [−1, 1], channels-last in memory.
    """
    return to_float(torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2))


def to_rgb(images: Tensor) -> np.ndarray:
    """Converts the model's output to arrays for picture files.

    Args:
        images: (N, C, H, W) in [−1, 1] with C = 1 or 3, on any device.

    Returns:
        (N, H, W, 3) uint8; one channel is repeated three times.
    """
    return to_uint8(images).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
