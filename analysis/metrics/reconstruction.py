"""Reconstruction measures on pixel values in [0, 1]: L1, PSNR, SSIM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import BATCH, Encoded, decode_to_measure
from analysis.probes.scores import mean
from pipeline.model.pixels import from_array

WINDOW = 7  # of SSIM's local statistics, pixels


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images (n, C, H, W) in [0, 1]: (n,) (Wang et al. 2004, eq. 13; uniform 7x7 windows)."""
    x, y = x.contiguous(), y.contiguous()
    c1, c2 = 0.01**2, 0.03**2
    count = WINDOW * WINDOW
    unbias = count / (count - 1)

    def local_mean(t: Tensor) -> Tensor:  # sums of shifted slices: 7 times as fast as avg_pool2d on a CPU
        rows, columns = t.shape[-2] - WINDOW + 1, t.shape[-1] - WINDOW + 1
        bands = t[..., :rows, :].clone()
        for shift in range(1, WINDOW):
            bands += t[..., shift : shift + rows, :]
        total = bands[..., :columns].clone()
        for shift in range(1, WINDOW):
            total += bands[..., shift : shift + columns]
        return total / count

    mx, my = local_mean(x), local_mean(y)
    vx, vy = (local_mean(x * x) - mx * mx) * unbias, (local_mean(y * y) - my * my) * unbias
    vxy = (local_mean(x * y) - mx * my) * unbias
    similarity = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return similarity.mean((1, 2, 3))


@torch.inference_mode()
def reconstruction_errors(
    context: EvalContext, encoded: Encoded, advance: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """Measures ``l1``, ``mse`` and ``ssim``, (n,) each, of the reconstruction of each image from its mean code."""
    parts: dict[str, list[Tensor]] = {"l1": [], "mse": [], "ssim": []}
    for start in range(0, len(encoded), BATCH):
        chunk = slice(start, start + BATCH)
        decoded = decode_to_measure(context, [z[chunk] for z in encoded.means])
        x, y = (from_array(encoded.images[chunk]) + 1) / 2, (decoded + 1) / 2
        parts["l1"].append((x - y).abs().mean((1, 2, 3)))
        parts["mse"].append(((x - y) ** 2).mean((1, 2, 3)))
        parts["ssim"].append(ssim(x, y))
        advance(len(x))
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def summarize(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    """``l1``, ``psnr`` (dB, of the mean squared error) and ``ssim`` over all images, with 95 % intervals; ``n``."""
    l1, mse, ssims = (mean(errors[name].astype(float)) for name in ("l1", "mse", "ssim"))
    psnr, high, low = (float(-10 * np.log10(max(value, 1e-12))) for value in (mse.value, *mse.interval()))
    figures = l1.entry("l1") | {"psnr": psnr, "psnr_interval": [low, high]} | ssims.entry("ssim")
    return figures | {"n": len(errors["l1"])}
