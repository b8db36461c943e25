"""The exponential moving average of the weights, without a host synchronisation a step."""

from __future__ import annotations

import copy

import torch

from pipeline.model.vlae import VLAE


def decay_at(step: int, global_batch_size: int, time_constant_images: float) -> float:
    """The average's decay at ``step`` (from 0): exp(−batch / time constant), rising to it from 0.1.

    In images, so that the batch size does not change the average; the ramp forgets the random start.
    """
    if time_constant_images <= 0:
        return 0.0
    settled = 2.718281828459045 ** (-global_batch_size / time_constant_images)
    return min(settled, (1 + step) / (10 + step))


class MovingAverage:
    """An averaged copy of a VLAE (floating point parameters and buffers; others are copied)."""

    def __init__(self, module: VLAE) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: VLAE, decay: float) -> None:
        """averaged ← decay · averaged + (1 − decay) · current."""
        ours, theirs = [], []
        for mine, current in zip(
            self.module.state_dict(keep_vars=True).values(),
            module.state_dict(keep_vars=True).values(),
            strict=True,
        ):
            if mine.is_floating_point():
                ours.append(mine.detach())
                theirs.append(current.detach())
            else:
                mine.copy_(current)
        torch._foreach_lerp_(ours, theirs, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
