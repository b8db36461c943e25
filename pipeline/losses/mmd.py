"""Maximum mean discrepancy of the *global* batch, each rank paying for its own rows of the kernel matrix.

With n samples z of q and n of the prior p (paper, section 2.3; Gretton et al. 2012, eq. 5 and 3):

    biased    MMD² = 1/n² Σ_ij k(z_i, z_j)  +  1/n² Σ_ij k(p_i, p_j)  −  2/n² Σ_ij k(z_i, p_j)
    unbiased  the first two sums without i = j, over n(n − 1); it can be negative.

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

CHUNK_ELEMENTS = 1 << 20  # of the kernel matrix in memory at a time: 4 MiB each of a few arrays


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products on GPUs in all of float32, where the network's may take TF32.

    |x|² + |y|² − 2xy cancels for near samples: with TF32's 10 bits nothing would be left of their distance.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """|x_i − y_j|² (n, m) of rows (n, d) and columns (m, d), by one matrix product."""
    squared = torch.addmm((columns * columns).sum(1)[None, :], rows, columns.T, alpha=-2)
    squared += (rows * rows).sum(1)[:, None]
    return squared.clamp_(min=0)  # cancellation may leave −1e-6


class _KernelSum(torch.autograd.Function):
    """Σ_ij k(x_i, y_j) with its gradient towards x, both made chunk by chunk in the forward pass."""

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
    """One rank's share of both estimators: their sums over ranks are the MMD² of the global batch. Scalars, float64."""

    biased: Tensor
    unbiased: Tensor


def local_mmd(local: Tensor, everyone: Tensor, prior: Tensor, first_row: int, kernel: Kernel) -> LocalMMD:
    """This rank's share of MMD²(q, p) of one layer.

    ``local`` (n_local, d): this rank's latents, with gradient; ``everyone`` (n, d): all ranks' latents in the order
    of ranks, without gradient; ``prior`` (n, d): the whole batch's prior samples; ``first_row``: position of
    ``local`` in the global batch. Everything in float32.

    The gradient towards ``local`` is the full one of the *global* MMD: by symmetry each pair (i, j) also stands at
    (j, i), on some other rank perhaps, so the own rows' gradient counts twice and no gradient is communicated.
    """
    n, n_local = len(everyone), len(local)
    local_prior = prior[first_row : first_row + n_local]
    rows_q = _KernelSum.apply(local, everyone.detach(), kernel)
    sum_qq = 2 * rows_q - rows_q.detach()  # value once, gradient twice
    sum_qp = _KernelSum.apply(local, prior, kernel)
    sum_pp = _KernelSum.apply(local_prior, prior, kernel)
    cross = 2 * sum_qp / n**2
    biased = (sum_qq + sum_pp) / n**2 - cross
    unbiased = (sum_qq + sum_pp - 2 * n_local) / (n * (n - 1)) - cross  # k(z, z) = 1 on the diagonal
    return LocalMMD(biased, unbiased)


@torch.no_grad()
def unbiased_mmd(samples: Tensor, prior: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased MMD² between (n, d) samples and (n, d) prior samples on one process: a float64 scalar."""
    return local_mmd(samples.float(), samples.float(), prior.float(), 0, kernel).unbiased
