"""The resident feed: a whole split on the device, where batches are gathered without the host."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from pipeline.data.mapped import Batch
from pipeline.data.sampler import GlobalBatchSampler


class InMemoryLoader:
    """Batches of a split that lies on the device as one uint8 array."""

    def __init__(self, images: Tensor) -> None:
        """``images``: (n, H, W, C) uint8, on the device."""
        self.images, self.device, self.samples = images, images.device, len(images)
        self.waited_seconds = 0.0

    def load(self, rows: np.ndarray) -> Batch:
        """The images at ``rows`` (B,) int64, now."""
        chosen = torch.tensor(rows).to(self.device, non_blocking=True)
        flat = self.images.view(self.samples, -1).index_select(0, chosen)
        return Batch(flat.view(len(rows), *self.images.shape[1:]).permute(0, 3, 1, 2), chosen)

    def batches(self, plan: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """The batches of optimizer steps ``first`` … ``last`` − 1. Nothing need be made ahead."""
        for step in range(first, last):
            yield self.load(plan.rows(step))
