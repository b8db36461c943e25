"""The mapped feed: shuffled batches straight out of memory-mapped shards, gathered ahead of the training step."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.shard_region import ShardRegion
from preprocess.shardset import ShardSet


class Batch(NamedTuple):
    """One rank's part of a global batch, on the device."""

    images: Tensor
    """(B, C, H, W) uint8, channels-last in memory."""
    rows: Tensor
    """(B,) int64: which samples of the split these are."""


class FeedError(RuntimeError):
    """The shards cannot be fed; the message is one sentence for the terminal."""


def open_region(shards: ShardSet, split: str) -> ShardRegion:
    """The split's images as one array. Raises FeedError where the shards do not allow that."""
    manifest = shards.manifest
    if split not in manifest.splits or not manifest.splits[split].samples:
        raise FeedError(f"{shards.folder} has no images in its {split} split")
    if manifest.layout is None:
        raise FeedError(
            f"{shards.folder} holds {manifest.codec} members, which must be decoded one by one; make npy shards: "
            "`preprocess … --codec npy`"
        )
    counts = [shard.samples for shard in manifest.splits[split].shards]
    return ShardRegion(shards.shard_paths(split), counts, manifest.layout)


class MappedFeed:
    """Batches of given rows of a split. Time spent waiting for them is kept in ``waited_seconds``."""

    def __init__(self, region: ShardRegion, image_shape: tuple[int, int, int], device: torch.device) -> None:
        """``image_shape`` is (H, W, C), as stored."""
        self.region, self.image_shape, self.device = region, image_shape, device
        self.waited_seconds = 0.0

    def _gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        height, width, channels = self.image_shape
        # torch reuses both pageable and pinned host memory, so a fresh tensor a batch costs nothing
        buffer = torch.empty(
            (len(rows), height * width * channels), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        self.region.gather(rows, buffer)
        return buffer.view(len(rows), height, width, channels), torch.from_numpy(rows.copy())

    def _to_device(self, images: Tensor, rows: Tensor) -> Batch:
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return Batch(images, rows.to(self.device, non_blocking=True))

    def load(self, rows: np.ndarray) -> Batch:
        """One batch, now."""
        return self._to_device(*self._gather(np.asarray(rows)))

    def batches(self, rows_of: Callable[[int], np.ndarray], first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Batches number ``first`` … ``last`` − 1, gathered up to ``prefetch`` ahead by a thread."""
        ready: queue.Queue[tuple[Tensor, Tensor] | BaseException] = queue.Queue(maxsize=prefetch)
        stop = threading.Event()

        def put(item: tuple[Tensor, Tensor] | BaseException) -> None:
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def gather_all() -> None:
            try:
                for number in range(first, last):
                    if stop.is_set():
                        return
                    put(self._gather(rows_of(number)))
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=gather_all, name="feed", daemon=True)
        thread.start()
        try:
            for _ in range(first, last):
                begin = time.perf_counter()
                item = ready.get()
                self.waited_seconds += time.perf_counter() - begin
                if isinstance(item, BaseException):
                    raise item
                yield self._to_device(*item)
        finally:
            stop.set()
            thread.join()
