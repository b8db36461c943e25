"""Time and peak memory of the MMD against the way with a B x B x d tensor, in one run.

python benchmarks/mmd.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from pipeline.config.schema import KernelConfig
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import local_mmd

DIMENSIONS = 10


def ours(batch: int) -> None:
    """Forward and backward of the multi-scale IMQ, biased."""
    codes, prior = torch.randn(batch, DIMENSIONS, requires_grad=True), torch.randn(batch, DIMENSIONS)
    local_mmd(codes, codes.detach(), prior, 0, make_kernel(KernelConfig(), DIMENSIONS)).biased.backward()


def tensor_of_differences(batch: int) -> None:
    """The form of public code: a B x B x d tensor a pair of sets, one Gaussian."""
    codes, prior = torch.randn(batch, DIMENSIONS, requires_grad=True), torch.randn(batch, DIMENSIONS)

    def mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((a[:, None] - b[None]) ** 2).sum(2) / DIMENSIONS**2).mean()

    (mean(codes, codes) + mean(prior, prior) - 2 * mean(codes, prior)).backward()


def measure(name: str, batch: int) -> tuple[float, float]:
    """(seconds, MiB above the start) of the best of 3, in a process of its own: peaks never fall again."""
    done = subprocess.run([sys.executable, __file__, name, str(batch)], capture_output=True, text=True, check=True)
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def child(name: str, batch: int) -> None:
    torch.manual_seed(0)
    run = ours if name == "ours" else tensor_of_differences
    run(64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - begin)
    print(min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    table = Table("B", "ours (7 scales) ms", "MiB", "B x B x d (1 scale) ms", "MiB", "times faster")
    table.title = "MMD of one layer, d = 10, forward and backward"
    for batch in (256, 1024, 4096):
        (a, a_memory), (b, b_memory) = measure("ours", batch), measure("differences", batch)
        row = (f"{a * 1e3:.1f}", f"{a_memory:.0f}", f"{b * 1e3:.1f}", f"{b_memory:.0f}", f"{b / a:.1f}")
        table.add_row(f"{batch:,}", *row)
    Console().print(table)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], int(sys.argv[2]))
    else:
        main()
