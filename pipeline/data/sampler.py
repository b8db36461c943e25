"""Which samples make up which global batch: a pure function of (seed, epoch, batch number)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from pipeline.data.counter_rng import hash_key


def shuffled(size: int, *key: int) -> np.ndarray:
    """Returns the permutation of ``size`` numbers that belongs to a key: (size,) int64.

    RandomState, not Generator: its stream is frozen, so a run that is resumed under another NumPy keeps its order.
    """
    return np.random.RandomState(np.random.Philox(key=hash_key(*key))).permutation(size)


@lru_cache(maxsize=2)
def epoch_order(samples: int, seed: int, epoch: int, window: int = 0, shards: tuple[int, ...] = ()) -> np.ndarray:
    """Returns the order of the samples in one epoch: (samples,) int64.

    Args:
        samples: Size of the split.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        window: 0 shuffles the whole split. Otherwise the shards are permuted and the samples are shuffled inside one
            window of this size after the other, so that reading stays near one place at a time.
        shards: Samples of each shard; needed with a ``window`` only.
    """
    if not window:
        return shuffled(samples, seed, epoch)
    of_shards = np.split(np.arange(samples), np.cumsum(shards)[:-1])
    order = np.concatenate([of_shards[number] for number in shuffled(len(shards), seed, epoch)])
    for start in range(0, samples, window):
        part = order[start : start + window]
        part[:] = part[shuffled(len(part), seed, epoch, start + 1)]
    return order


@dataclass(frozen=True)
class GlobalBatchSampler:
    """The global batches of a run and this rank's part of each.

    Samples that do not fill a global batch are left out of their epoch.

    Raises:
        ValueError: When the batches cannot be made; the message says how to change that.
    """

    samples: int
    global_batch_size: int
    seed: int
    rank: int
    world_size: int
    window: int = 0
    shards: tuple[int, ...] = ()
    """Samples of each shard; needed with a ``window`` only."""

    def __post_init__(self) -> None:
        """Checks the numbers; see the class."""
        if self.global_batch_size % self.world_size:
            raise ValueError(
                f"the global batch of {self.global_batch_size} images cannot be shared equally by {self.world_size} "
                f"processes; choose --global-batch-size as a multiple of {self.world_size}"
            )
        if self.samples < self.global_batch_size:
            raise ValueError(
                f"the train split has {self.samples} images, fewer than one global batch of "
                f"{self.global_batch_size}; choose a smaller --global-batch-size or make more shards"
            )

    @cached_property
    def batches_per_epoch(self) -> int:
        """Global batches in one epoch."""
        return self.samples // self.global_batch_size

    @cached_property
    def local_batch_size(self) -> int:
        """Images of a global batch on this rank."""
        return self.global_batch_size // self.world_size

    @cached_property
    def first_position(self) -> int:
        """Position of this rank's first image in every global batch."""
        return self.rank * self.local_batch_size

    def epoch_of(self, step: int) -> int:
        """Returns the epoch that optimizer step ``step`` (from 0) belongs to."""
        return step // self.batches_per_epoch

    def indices(self, step: int) -> np.ndarray:
        """Returns the samples of this rank's part of the global batch of ``step``: (B_local,) int64."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        start = batch * self.global_batch_size + self.first_position
        order = epoch_order(self.samples, self.seed, epoch, self.window, self.shards)
        return order[start : start + self.local_batch_size]
