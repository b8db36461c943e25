"""The mapped feed: shuffled batches straight out of memory-mapped shards, gathered ahead of the training step.

What the feeds have in common is here too: a batch, and the two things that a feed can do.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_region import ShardRegion
from preprocess.shards.reader import ShardSet


class Batch(NamedTuple):
    """One rank's part of a global batch, on the device; good until the next batch of the same feed is asked for."""

    images: Tensor
    """(B, C, H, W) uint8, channels-last in memory."""
    rows: Tensor
    """(B,) int64: which samples of the split these are."""


class LoaderError(RuntimeError):
    """The shards cannot be fed; the message is one sentence for the terminal."""


class BatchLoader(Protocol):
    """Feeds training: this rank's part of one global batch after the other."""

    waited_seconds: float
    """Time that the trainer has spent waiting for batches so far."""

    def batches(self, plan: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """The batches of optimizer steps ``first`` … ``last`` − 1, made up to ``prefetch`` ahead."""
        ...


class IndexedLoader(Protocol):
    """Feeds validation and pictures: any rows of a split of ``samples`` images."""

    samples: int
    device: torch.device

    def load(self, rows: np.ndarray) -> Batch:
        """The images at ``rows`` (B,) int64, now."""
        ...


def open_region(shards: ShardSet, split: str) -> ShardRegion:
    """The split's images as one array. Raises LoaderError where the shards do not allow that."""
    manifest = shards.manifest
    if split not in manifest.splits or not manifest.splits[split].samples:
        raise LoaderError(f"{shards.folder} has no images in its {split} split")
    if manifest.layout is None:
        raise LoaderError(
            f"{shards.folder} holds {manifest.codec} members, which cannot be mapped: train with data.mode=resident or "
            "streamed, or make npy shards (`preprocess … --codec npy`)"
        )
    counts = [shard.samples for shard in manifest.splits[split].shards]
    return ShardRegion(shards.shard_paths(split), counts, manifest.layout)


@dataclass
class _Slot:
    """A batch-sized buffer on the host, filled by the feed's thread and given back when its batch is done with."""

    buffer: Tensor
    rows: Tensor
    copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the device no longer reads the buffer."""
        if self.copied is not None:
            self.copied.synchronize()


class MmapLoader:
    """Batches of a split that lies on this machine's disk as npy shards."""

    def __init__(self, region: ShardRegion, image_shape: tuple[int, int, int], device: torch.device) -> None:
        """``image_shape`` is (H, W, C), as stored."""
        self.region, self.image_shape, self.device = region, image_shape, device
        self.samples = len(region)
        self.waited_seconds = 0.0

    def _slot(self, size: int) -> _Slot:
        pinned = self.device.type == "cuda"
        pixels = int(np.prod(self.image_shape))
        return _Slot(torch.empty((size, pixels), dtype=torch.uint8, pin_memory=pinned), torch.empty(0))

    def _fill(self, slot: _Slot, rows: np.ndarray) -> _Slot:
        slot.wait()
        slot.rows = torch.tensor(rows)
        self.region.gather(slot.rows, slot.buffer)
        return slot

    def _to_device(self, slot: _Slot) -> Batch:
        images = slot.buffer.view(-1, *self.image_shape).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        batch = Batch(images, slot.rows.to(self.device, non_blocking=True))
        if self.device.type == "cuda":
            slot.copied = torch.cuda.Event()
            slot.copied.record()
        return batch

    def load(self, rows: np.ndarray) -> Batch:
        """The images at ``rows`` (B,) int64, now."""
        return self._to_device(self._fill(self._slot(len(rows)), rows))

    def batches(self, plan: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """The batches of optimizer steps ``first`` … ``last`` − 1, gathered up to ``prefetch`` ahead by a thread.

        The buffers go round: fresh ones cost a page fault every 4 KiB, as much as the gather itself.
        """
        ready: queue.Queue[_Slot | BaseException] = queue.Queue()
        free: queue.Queue[_Slot | None] = queue.Queue()
        for _ in range(prefetch + 1):
            free.put(self._slot(plan.local_batch_size))

        def gather_all() -> None:
            torch.get_num_threads()  # torch sets up a thread's OpenMP at its first use, which would undo the limit
            with contextlib.suppress(Exception):
                # one core keeps up with any model; more would take turns with the step's own threads
                threadpool_limits(1, user_api="openmp")
            try:
                for step in range(first, last):
                    slot = free.get()
                    if slot is None:
                        return
                    ready.put(self._fill(slot, plan.rows(step)))
            except BaseException as error:
                ready.put(error)

        thread = threading.Thread(target=gather_all, name="feed", daemon=True)
        thread.start()
        try:
            for _ in range(first, last):
                begin = time.perf_counter()
                item = ready.get()
                self.waited_seconds += time.perf_counter() - begin
                if isinstance(item, BaseException):
                    raise item
                yield self._to_device(item)
                free.put(item)
        finally:
            free.put(None)
            thread.join()
