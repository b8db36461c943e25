"""Maximum mean discrepancy of the *global* batch. Each rank computes its own rows of the kernel matrix.

With n samples z of q and n of the prior p (paper, section 2.3; Gretton et al. 2012, eq. 5 and 3):

    biased    MMD² = 1/n² Σ_ij k(z_i, z_j)  +  1/n² Σ_ij k(p_i, p_j)  −  2/n² Σ_ij k(z_i, p_j)
    unbiased MMD²: the first two sums without i = j, over n(n − 1). It can be negative.

Memory is O(CHUNK_ELEMENTS) and time O(n_local × n) a rank: no n × n matrix and no n × n × d tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from pipeline.losses.kernels import Kernel

CHUNK_ELEMENTS = 1 << 20
"""Elements of the kernel matrix in memory at a time: a few arrays of 4 MiB."""


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Runs matrix products on GPUs in full float32, where those of the network may use TF32.

    |x|² + |y|² − 2xy cancels for near samples: TF32's 10 bits would leave nothing of their distance.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Returns |x_i − y_j|² (n, m) of rows (n, d) and columns (m, d), by one matrix product."""
    squared = torch.addmm((columns * columns).sum(1)[None, :], rows, columns.T, alpha=-2)
    squared += (rows * rows).sum(1)[:, None]
    return squared.clamp_(min=0)  # cancellation may leave −1e-6


class _KernelSum(torch.autograd.Function):
    """Σ_ij k(x_i, y_j) with its gradient towards x. Both are computed in chunks in the forward pass."""

    @staticmethod
    @full_float32()
    def forward(ctx: FunctionCtx, rows: Tensor, columns: Tensor, kernel: Kernel) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        gradient = torch.empty_like(rows) if rows.requires_grad else None
        height = max(1, CHUNK_ELEMENTS // len(columns))
        for start in range(0, len(rows), height):
            chunk = rows[start : start + height]
            value, slope = kernel(squared_distances(chunk, columns), gradient is not None)
            total += value.sum(dtype=torch.float64)
            if gradient is not None and slope is not None:
                # d/dx_i Σ_j k = Σ_j k'(d2) · 2 (x_i − y_j)
                gradient[start : start + height] = 2 * (slope.sum(1, keepdim=True) * chunk - slope @ columns)
        ctx.gradient = gradient  # type: ignore[attr-defined]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        gradient: Tensor | None = ctx.gradient  # type: ignore[attr-defined]
        return (None if gradient is None else gradient * upstream.to(gradient.dtype)), None, None


class LocalMMD(NamedTuple):
    """One rank's share of both estimators, () float64. The sums over ranks are the MMD² of the global batch."""

    biased: Tensor
    unbiased: Tensor


def local_mmd(local: Tensor, gathered: Tensor, prior: Tensor, first_position: int, kernel: Kernel) -> LocalMMD:
    """Returns this rank's share of MMD²(q, p) of one layer.

    The gradient towards ``local`` is the full gradient of the *global* MMD. The kernel matrix is symmetric, so each
    pair (i, j) also occurs as (j, i), perhaps on another rank. The gradient of this rank's rows therefore counts twice,
    and no gradient is communicated.

    Args:
        local: (n_local, d) float32, this rank's latents, with gradient.
        gathered: (n, d) float32, the latents of all ranks in the order of ranks, without gradient.
        prior: (n, d) float32, the prior samples of the whole batch.
        first_position: Position of the first row of ``local`` in the global batch.
        kernel: The kernel of the layer.
    """
    n, n_local = len(gathered), len(local)
    local_prior = prior[first_position : first_position + n_local]
    rows_q = _KernelSum.apply(local, gathered.detach(), kernel)
    sum_qq = 2 * rows_q - rows_q.detach()  # value once, gradient twice
    sum_qp = _KernelSum.apply(local, prior, kernel)
    sum_pp = _KernelSum.apply(local_prior, prior, kernel)
    cross = 2 * sum_qp / n**2
    biased = (sum_qq + sum_pp) / n**2 - cross
    unbiased = (sum_qq + sum_pp - 2 * n_local) / (n * (n - 1)) - cross  # k(z, z) = 1 on the diagonal
    return LocalMMD(biased, unbiased)


@torch.no_grad()
def unbiased_mmd(samples: Tensor, prior: Tensor, kernel: Kernel) -> Tensor:
    """Returns the unbiased MMD² between (n, d) samples and (n, d) prior samples on one process: () float64."""
    return local_mmd(samples.float(), samples.float(), prior.float(), 0, kernel).unbiased
