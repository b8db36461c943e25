"""The reconstruction term of the objective: pixels, the bands of a Laplacian pyramid, and a window on the face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pipeline.config.schema import ConfigError, ObjectiveConfig
from pipeline.losses.mmd import full_float32

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


@cache
def _halving(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the matrices that halve ``length`` values by the mean of two, and that interpolate them back."""
    half = F.avg_pool1d(torch.eye(length, device=device)[:, None], 2)
    back = F.interpolate(torch.eye(half.shape[2], device=device)[:, None], size=length, mode="linear")
    return half[:, 0].T.contiguous(), back[:, 0].T.contiguous()


def _on_both_axes(rows: Tensor, maps: Tensor, columns: Tensor) -> Tensor:
    """Applies ``rows`` to the first and ``columns`` to the last axis of maps (H, n, W)."""
    height, n, width = maps.shape
    wide = maps.reshape(height * n, width) @ columns.T
    return (rows @ wide.view(height, -1)).view(len(rows), n, len(columns))


class LaplacianLoss(torch.autograd.Function):
    """The weighted errors of the bands of a Laplacian pyramid (Burt and Adelson 1983), with their gradient.

    A flat patch of background or skin vanishes from a band-pass image. So small features, an eye or a mouth, count here
    for more than the share of pixels that they cover.

    The images are halved, and interpolated back, by products with small matrices. On the CPU that takes half the time
    of PyTorch's pooling and interpolation. The gradient is computed in the forward pass.
    """

    @staticmethod
    @full_float32()
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, difference: Tensor, kind: str, weights: Sequence[float], windows: Sequence[Tensor | None]
    ) -> Tensor:
        """Returns Σ weight · ``mean_error`` of the band over the levels, finest first: ().

        Args:
            ctx: Keeps the gradient.
            difference: (B, C, H, W) float32.
            kind: l1 or l2.
            weights: Of each band.
            windows: Of each band, see ``mean_error``.
        """
        batch, channels, height, width = difference.shape
        low = difference.permute(2, 0, 1, 3).reshape(height, batch * channels, width)
        total, levels = low.new_zeros(()), []
        for weight, window in zip(weights, windows, strict=True):
            (halve_h, restore_h), (halve_w, restore_w) = (_halving(low.shape[axis], low.device) for axis in (0, 2))
            half = _on_both_axes(halve_h, low, halve_w)
            band = low - _on_both_axes(restore_h, half, restore_w)
            slope = band.sign() if kind == "l1" else band * 2
            slope *= weight / band.numel() * (1 if window is None else window[:, None])
            error = torch.dot(slope.flatten(), band.flatten())
            total += error if kind == "l1" else error / 2
            levels.append((slope, halve_h, restore_h, halve_w, restore_w))
            low = half
        gradient = torch.zeros_like(low)
        for slope, halve_h, restore_h, halve_w, restore_w in reversed(levels):
            gradient -= _on_both_axes(restore_h.T, slope, restore_w.T)
            gradient = slope.add_(_on_both_axes(halve_h.T, gradient, halve_w.T))
        ctx.gradient = gradient.view(height, batch, channels, width).permute(1, 2, 0, 3)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the gradient of ``difference``."""
        return ctx.gradient.clone(memory_format=torch.channels_last).mul_(upstream), None, None, None


class ReconstructionLoss(nn.Module):
    """What an objective's reconstruction settings make of two batches of images. It has no parameters."""

    window0: Tensor | None

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

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compares float32 images (B, C, H, W).

        Returns:
            (), the loss without ``reconstruction_weight``; and (), the error of all pixels alike, without gradient.
        """
        config = self.config
        loss = mean_error(output, target, config.reconstruction, self.window0)
        weighted = self.window0 is not None
        error = mean_error(output.detach(), target, config.reconstruction) if weighted else loss.detach()
        if not config.laplacian_weight:
            return loss, error
        windows = [getattr(self, f"window{level}") for level in range(len(self.band_weights))]
        bands = LaplacianLoss.apply(output - target, config.reconstruction, self.band_weights, windows)
        return loss + config.laplacian_weight * bands, error
