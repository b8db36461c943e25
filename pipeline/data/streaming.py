"""The streaming loader: shards read from any address in order, shuffled inside a window.

An epoch is the shards in a seeded order, one behind the other. This sequence is cut into equal runs of samples, one for
each rank, and those into runs of whole batches, one for each worker. So every rank has the same number of batches, and
no sample is read twice or left out, except those that do not fill a global batch. Inside its run a worker shuffles one
window after the other, and reads the next window while it serves this one. All of that is arithmetic on the manifest: a
resumed run opens the shard in which it stopped, and no earlier one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.data.batch import Batch, LoaderError, WaitingLoader, prefetched
from pipeline.data.sampler import GlobalBatchSampler, shuffled
from pipeline.data.shard_reader import ShardSource, stream_shard

DEFAULT_WINDOW = 8192

ImagesAndIndices = tuple[Tensor, Tensor]
"""Images (B, H, W, C) uint8 and indices (B,) int64."""


def part_of(sampler: GlobalBatchSampler, worker: int, workers: int) -> range:
    """Returns which of an epoch's local batches ``worker`` of this rank reads: as many as fall to it in turn."""
    sizes = [len(range(w, sampler.batches_per_epoch, workers)) for w in range(workers)]
    first = sampler.rank * sampler.batches_per_epoch + sum(sizes[:worker])
    return range(first, first + sizes[worker])


class Window(NamedTuple):
    """Samples that are shuffled among each other."""

    images: Tensor
    """(n, H, W, C) uint8, in stored order."""
    indices: Tensor
    """(n,) int64."""
    batches: list[Tensor]
    """Positions in the window, (B_local,) int64 each."""


@dataclass(frozen=True)
class StepReader(IterableDataset):
    """Reads one rank's batches of the optimizer steps ``first`` … ``last`` − 1."""

    source: ShardSource
    sampler: GlobalBatchSampler
    window: int
    """Samples that are shuffled among each other."""
    first: int
    last: int

    def __iter__(self) -> Iterator[ImagesAndIndices | str]:
        """Yields the part of a DataLoader's worker. Errors are yielded as text: raised, they would be tracebacks."""
        info = get_worker_info()
        assert info is not None
        torch.set_num_threads(1)
        try:
            yield from self.steps(info.id, info.num_workers)
        except LoaderError as error:
            yield str(error)

    def steps(self, worker: int = 0, workers: int = 1) -> Generator[ImagesAndIndices]:
        """Yields what ``worker`` makes of the steps: every ``workers``-th, in order."""
        left = len(range(self.first + worker, self.last, workers))
        for images, indices, batches in prefetched(self._windows(worker, workers), depth=1):
            for chosen in batches[:left]:
                yield images.index_select(0, chosen), indices.index_select(0, chosen)
            left = max(0, left - len(batches))

    def _windows(self, worker: int, workers: int) -> Generator[Window]:
        """Yields the windows of ``steps``. Their last batches may belong to steps behind ``last``."""
        step = self.first + worker
        while step < self.last:
            epoch, batch = divmod(step, self.sampler.batches_per_epoch)
            part = part_of(self.sampler, batch % workers, workers)
            for window in self._epoch_windows(epoch, part, batch // workers):
                yield window
                step += len(window.batches) * workers
                if step >= self.last:
                    return

    def _epoch_windows(self, epoch: int, part: range, skip: int) -> Iterator[Window]:
        """Yields the windows of one part of an epoch, without its first ``skip`` batches."""
        size = self.sampler.local_batch_size
        per_window = max(1, self.window // size)
        first = skip // per_window * per_window  # the first batch of the window in which ``skip`` lies
        blocks = self._samples(epoch, (part.start + first) * size, part.stop * size)
        block, index = np.empty(0), 0
        for number in range(first, len(part), per_window):
            count = min(per_window, len(part) - number) * size
            images = np.empty((count, *self.source.manifest.image_shape), np.uint8)
            indices = np.empty(count, np.int64)
            filled = 0
            while filled < count:
                if not len(block):
                    block, index = next(blocks)
                end = min(filled + len(block), count)
                taken = end - filled
                images[filled:end], indices[filled:end] = block[:taken], range(index, index + taken)
                block, index, filled = block[taken:], index + taken, end
            order = torch.from_numpy(shuffled(count, self.sampler.seed, epoch, part.start * size + number))
            batches = list(order.split(size))[max(0, skip - number) :]
            yield Window(torch.from_numpy(images), torch.from_numpy(indices), batches)
        for _ in blocks:  # to the end of the last shard, where its content is compared
            pass

    def _samples(self, epoch: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields positions ``start`` … ``stop`` − 1 of the epoch's shards: blocks, and the index of each's first."""
        shards = self.source.shards("train")
        first_indices = np.cumsum([0, *(shard.samples for shard in shards)]).tolist()
        position = 0
        for number in shuffled(len(shards), self.sampler.seed, epoch):
            shard, end = shards[number], position + shards[number].samples
            if end > start and position < stop:
                at = max(start, position)
                for block in stream_shard(self.source, shard, at - position):
                    if at < stop:  # a shard that is shared with another rank is read to its end, to be checked
                        yield block[: stop - at], first_indices[number] + at - position
                    elif not self.source.hashed:
                        break
                    at += len(block)
            position = end


class StreamingLoader(WaitingLoader):
    """Batches of a split that is read as a stream, by a thread of this process or by worker processes."""

    def __init__(self, source: ShardSource, window: int, device: torch.device, workers: int) -> None:
        """Loads nothing yet.

        Args:
            source: The shards.
            window: Samples that are shuffled among each other.
            device: Device of the batches.
            workers: Processes that read; 0 reads in a thread.
        """
        self.source, self.window, self.device, self.workers = source, window, device, workers

    def batches(self, sampler: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Yields the batches of optimizer steps ``first`` … ``last`` − 1, read up to ``prefetch`` ahead.

        Raises:
            LoaderError: When a shard is damaged or cannot be read.
        """
        reader = StepReader(self.source, sampler, self.window, first, last)
        items, depth = (self._by_workers(reader, prefetch), 1) if self.workers else (reader.steps(), prefetch)
        for images, indices in prefetched(items, depth, self.add_wait):
            on_device = images.to(self.device, non_blocking=True)
            yield Batch(on_device.permute(0, 3, 1, 2), indices.to(self.device, non_blocking=True))

    def _by_workers(self, reader: StepReader, prefetch: int) -> Generator[ImagesAndIndices]:
        for item in DataLoader(
            reader,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=max(1, prefetch // self.workers),
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="forkserver",  # this process has threads, which a fork would not survive
        ):
            if isinstance(item, str):
                raise LoaderError(item)
            yield item
