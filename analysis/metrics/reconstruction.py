"""Reconstruction measures on pixel values in [0, 1]: L1, PSNR, SSIM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import BATCH
from analysis.metrics.bootstrap import interval, mean_interval, resamples
from pipeline.model.pixels import from_array

WINDOW = 7  # of SSIM's local statistics, pixels


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images (n, C, H, W) in [0, 1]: (n,) (Wang et al. 2004, eq. 13; uniform 7x7 windows)."""
    c1, c2 = 0.01**2, 0.03**2
    count = WINDOW * WINDOW
    unbias = count / (count - 1)

    def mean(t: Tensor) -> Tensor:
        return F.avg_pool2d(t, WINDOW, 1)

    mx, my = mean(x), mean(y)
    vx, vy = (mean(x * x) - mx * mx) * unbias, (mean(y * y) - my * my) * unbias
    vxy = (mean(x * y) - mx * my) * unbias
    similarity = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return similarity.mean((1, 2, 3))


@torch.inference_mode()
def reconstruction_errors(
    context: EvalContext, images: np.ndarray, means: Sequence[Tensor] | None = None
) -> dict[str, np.ndarray]:
    """Per image of uint8 (n, H, W, C): ``l1``, ``mse`` and ``ssim`` of its reconstruction from mean codes, (n,).

    ``means`` are those codes (n, d_l) where they are known already.
    """
    parts: dict[str, list[Tensor]] = {"l1": [], "mse": [], "ssim": []}
    for start in range(0, len(images), BATCH):
        x = from_array(images[start : start + BATCH], context.device)
        if means is None:
            codes = [q.mean for q in context.vlae.encode(x)]
        else:
            codes = [z[start : start + BATCH].to(context.device) for z in means]
        y = context.vlae.decode(codes)
        x, y = (x + 1) / 2, (y + 1) / 2
        parts["l1"].append((x - y).abs().mean((1, 2, 3)).cpu())
        parts["mse"].append(((x - y) ** 2).mean((1, 2, 3)).cpu())
        parts["ssim"].append(ssim(x, y).cpu())
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def _psnr(mse: np.ndarray) -> np.ndarray:
    return 10 * np.log10(1 / np.maximum(mse, 1e-12))


def summarize(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    """``l1``, ``psnr`` (dB, of the mean squared error) and ``ssim`` over all images, with 95 % intervals; ``n``."""
    mse = errors["mse"].astype(float)
    return {
        "l1": float(errors["l1"].mean()),
        "l1_interval": mean_interval(errors["l1"]),
        "psnr": float(_psnr(mse.mean())),
        "psnr_interval": interval(_psnr(resamples(len(mse)) @ mse / len(mse))),
        "ssim": float(errors["ssim"].mean()),
        "ssim_interval": mean_interval(errors["ssim"]),
        "n": len(mse),
    }
