"""The exponential moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.model.vlae import VLAE


def decay_at(step: int, global_batch_size: int, time_constant_images: float) -> float:
    """Returns the average's decay: exp(−batch / time constant), rising to it from 0.1.

    Measured in images, so the batch size does not change the average. The rise forgets the random start.

    Args:
        step: The optimizer step, from 0.
        global_batch_size: Images in a step, over all ranks.
        time_constant_images: Images after which the weight of a step has fallen to 1/e. 0 = no average.
    """
    if time_constant_images <= 0:
        return 0.0
    settled = math.e ** (-global_batch_size / time_constant_images)
    return min(settled, (1 + step) / (10 + step))


class MovingAverage:
    """An averaged copy of a VLAE: its floating point parameters and buffers. Others are copied.

    The formula is that of torch's AveragedModel. That class itself reads its counter in every step, for which the host
    would have to wait for the GPU.
    """

    def __init__(self, module: VLAE) -> None:
        """Starts as a copy of ``module``."""
        self._source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._averages = _tensors(self.module)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Moves the average: averaged ← decay · averaged + (1 − decay) · current."""
        # looked up in every step: wrapping a model for several ranks may replace its tensors
        pairs = list(zip(self._averages, _tensors(self._source), strict=True))
        averages, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        get_ema_multi_avg_fn(decay)(averages, values, None)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
