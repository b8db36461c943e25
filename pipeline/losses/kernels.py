"""Kernels k(z, z') of the MMD as functions of the squared distance. All have k(z, z) = 1.

To add one: write a function that returns a ``Kernel`` here and name it in ``make_kernel`` and ``KernelConfig``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.config.schema import KernelConfig

Kernel = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
"""(squared distances (n, m) float32, with slope) -> (k, dk/dd2), both (n, m). The slope is None where not wanted."""


def gaussian(widths: tuple[float, ...]) -> Kernel:
    """Returns the mean over widths w of exp(−|z − z'|² / w): the paper's Gaussian with sigma² = w/2 (section 2.3)."""

    def kernel(squared: Tensor, with_slope: bool) -> tuple[Tensor, Tensor | None]:
        value = torch.zeros_like(squared)
        slope = torch.zeros_like(squared) if with_slope else None
        for width in widths:
            term = torch.exp(squared * (-1.0 / width))
            value.add_(term, alpha=1 / len(widths))
            if slope is not None:
                slope.add_(term, alpha=-1 / (width * len(widths)))
        return value, slope

    return kernel


def inverse_multiquadric(widths: tuple[float, ...]) -> Kernel:
    """Returns the mean over widths C of C / (C + |z − z'|²) (Tolstikhin et al. 2018, section 4)."""

    def kernel(squared: Tensor, with_slope: bool) -> tuple[Tensor, Tensor | None]:
        value = torch.zeros_like(squared)
        slope = torch.zeros_like(squared) if with_slope else None
        for width in widths:
            term = torch.add(squared, width).reciprocal_()  # 1 / (C + d²)
            value.add_(term, alpha=width / len(widths))
            if slope is not None:
                slope.addcmul_(term, term, value=-width / len(widths))
        return value, slope

    return kernel


def make_kernel(config: KernelConfig, dimensions: int) -> Kernel:
    """Builds the configured kernel for a layer of ``dimensions`` latents.

    The widths grow with d, so that the kernel is neither flat nor a spike in any dimension: under the prior
    E|z − z'|² = 2d. The Gaussian with one bandwidth defaults to the published d² instead.
    """
    if config.name == "gaussian":
        return gaussian((config.bandwidth or float(dimensions**2),))
    widths = tuple(scale * (config.bandwidth or 2.0 * dimensions) for scale in config.scales)
    return gaussian(widths) if config.name == "rbf" else inverse_multiquadric(widths)
