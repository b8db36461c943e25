"""The reconstruction term of the objective: pixels, the bands of a Laplacian pyramid, and a window on the face."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import ConfigError, ObjectiveConfig

FACE_CENTER, FACE_RADIUS = (0.62, 0.5), 0.3
"""The middle of an aligned face, in heights and widths of CelebA's crop, and a standard deviation around it."""


def mean_error(output: Tensor, target: Tensor, kind: str, window: Tensor | None = None) -> Tensor:
    """Returns the mean |difference| (l1, Laplace) or squared difference (l2, Gaussian) over all values: ().

    Args:
        output: (B, C, H, W).
        target: (B, C, H, W).
        kind: l1 or l2.
        window: (H, W), the weight of each pixel, with mean 1. None = all are alike.
    """
    if window is None:
        return F.l1_loss(output, target) if kind == "l1" else F.mse_loss(output, target)
    difference = output - target
    return ((difference.abs() if kind == "l1" else difference.square()) * window).mean()


def face_window(height: int, width: int, weight: float) -> Tensor:
    """Returns (H, W) float32 with mean 1: a Gaussian around the face, ``weight`` times as high there as far away."""
    y = ((torch.arange(height) + 0.5) / height - FACE_CENTER[0]) / FACE_RADIUS
    x = ((torch.arange(width) + 0.5) / width - FACE_CENTER[1]) / FACE_RADIUS
    window = 1 + (weight - 1) * torch.exp(-(y[:, None].square() + x.square()) / 2)
    return window / window.mean()


def laplacian_band_count(height: int, width: int) -> int:
    """Counts the bands of an image's Laplacian pyramid. It is halved while both sides are even, down to 8."""
    count = 0
    while min(height, width) >= 8:
        count += 1
        if height // 2 % 2 or width // 2 % 2:
            break
        height, width = height // 2, width // 2
    return count


def laplacian_bands(difference: Tensor) -> list[Tensor]:
    """Splits images (B, C, H, W) into the bands of their Laplacian pyramid (Burt and Adelson 1983), finest first.

    A flat patch of background or skin vanishes from a band-pass image. So small features, an eye or a mouth, count here
    for more than the share of pixels that they cover.
    """
    bands: list[Tensor] = []
    for _ in range(laplacian_band_count(*difference.shape[-2:])):
        low = F.avg_pool2d(difference, 2)
        bands.append(difference - F.interpolate(low, size=difference.shape[-2:], mode="bilinear", align_corners=False))
        difference = low
    return bands


class ReconstructionLoss(nn.Module):
    """What an objective's reconstruction settings make of two batches of images. It has no parameters."""

    def __init__(self, config: ObjectiveConfig, image_shape: tuple[int, int, int]) -> None:
        """Prepares the windows of images of ``image_shape`` (C, H, W).

        Raises:
            ConfigError: ``laplacian_band_weights`` has more weights than images of this size have bands.
        """
        super().__init__()
        height, width = image_shape[1:]
        bands = laplacian_band_count(height, width)
        if len(config.laplacian_band_weights) > bands:
            raise ConfigError(
                f"objective.laplacian_band_weights: {len(config.laplacian_band_weights)} weights, but images of "
                f"{height}x{width} have {bands} bands; leave out the last weights"
            )
        self.config = config
        self.band_weights = config.laplacian_band_weights or (1 / max(bands, 1),) * bands
        for level in range(max(bands, 1)):
            size = height >> level, width >> level
            window = face_window(*size, config.face_weight) if config.face_weight != 1 else None
            self.register_buffer(f"window{level}", window, persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of float32 images (B, C, H, W), without ``reconstruction_weight``: ()."""
        config = self.config
        loss = mean_error(output, target, config.reconstruction, self.window0)
        if not config.laplacian_weight:
            return loss
        bands = laplacian_bands(output - target)
        for level, (weight, band) in enumerate(zip(self.band_weights, bands, strict=False)):
            error = mean_error(band, torch.zeros_like(band), config.reconstruction, getattr(self, f"window{level}"))
            loss = loss + config.laplacian_weight * weight * error
        return loss
