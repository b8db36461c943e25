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

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.data.batch import Batch, LoaderError, Prefetcher
from pipeline.data.sampler import GlobalBatchSampler, shuffled
from pipeline.data.shard_reader import ShardSource, stream_shard

DEFAULT_WINDOW = 8192

ImagesAndIndices = tuple[Tensor, Tensor]
"""Images (B, H, W, C) uint8 and indices (B,) int64."""


@dataclass(frozen=True)
class Part:
    """A worker's part of an epoch."""

    start: int
    """Its first sample in the epoch's sequence of shards."""
    batches: int
    """Its number of whole batches."""


def part_of(sampler: GlobalBatchSampler, worker: int, workers: int) -> Part:
    """Returns the part of an epoch that ``worker`` of this rank reads: every ``workers``-th batch is its own."""
    sizes = [len(range(w, sampler.batches_per_epoch, workers)) for w in range(workers)]
    before = sampler.rank * sampler.batches_per_epoch + sum(sizes[:worker])
    return Part(before * sampler.local_batch_size, sizes[worker])


@dataclass(frozen=True)
class Window:
    """Samples that are shuffled among each other."""

    images: Tensor
    """(n, H, W, C) uint8, in stored order."""
    indices: Tensor
    """(n,) int64."""
    batches: list[Tensor]
    """Positions in the window, (B_local,) int64 each."""

    def __iter__(self) -> Iterator[ImagesAndIndices]:
        """Yields the batches."""
        for chosen in self.batches:
            yield self.images.index_select(0, chosen), self.indices.index_select(0, chosen)


@dataclass(frozen=True)
class EpochReader:
    """Reads one rank's batches, epoch after epoch."""

    source: ShardSource
    sampler: GlobalBatchSampler
    window: int
    """Samples that are shuffled among each other."""
    hashed: bool
    """See ``stream_shard``."""

    def steps(self, first: int, last: int, worker: int, workers: int) -> Iterator[ImagesAndIndices]:
        """Yields what ``worker`` makes of the steps ``first`` … ``last`` − 1: every ``workers``-th, in order."""
        left = len(range(first + worker, last, workers))
        for window in Prefetcher(self.windows(first, last, worker, workers), depth=1):
            for batch in window:
                if not left:
                    return
                yield batch
                left -= 1

    def windows(self, first: int, last: int, worker: int, workers: int) -> Iterator[Window]:
        """Yields the windows of ``steps``. Their last batches may belong to steps behind ``last``."""
        step = first + worker
        while step < last:
            epoch, batch = divmod(step, self.sampler.batches_per_epoch)
            part, skip = part_of(self.sampler, batch % workers, workers), batch // workers
            for window in self._epoch_windows(epoch, part, skip):
                yield window
                step += len(window.batches) * workers
                if step >= last:
                    return

    def _epoch_windows(self, epoch: int, part: Part, skip: int) -> Iterator[Window]:
        """Yields the windows of one part of an epoch, without its first ``skip`` batches."""
        size = self.sampler.local_batch_size
        per_window = max(1, self.window // size)
        first = skip // per_window * per_window  # the first batch of the window in which ``skip`` lies
        blocks = self.samples(epoch, part.start + first * size, part.start + part.batches * size)
        rest: tuple[np.ndarray, np.ndarray] | None = None
        for number in range(first, part.batches, per_window):
            count = min(per_window, part.batches - number) * size
            images = np.empty((count, *self.source.manifest.image_shape), np.uint8)
            indices = np.empty(count, np.int64)
            filled = 0
            while filled < count:
                block, block_indices = rest or next(blocks)
                take = min(len(block), count - filled)
                images[filled : filled + take], indices[filled : filled + take] = block[:take], block_indices[:take]
                rest = (block[take:], block_indices[take:]) if take < len(block) else None
                filled += take
            order = torch.from_numpy(shuffled(count, self.sampler.seed, epoch, part.start + number))
            batches = list(order.split(size))[max(0, skip - number) :]
            yield Window(torch.from_numpy(images), torch.from_numpy(indices), batches)
        for _ in blocks:  # to the end of the last shard, where its content is compared
            pass

    def samples(self, epoch: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields positions ``start`` … ``stop`` − 1 of the epoch's sequence of shards, as (images, indices) blocks."""
        shards = self.source.shards("train")
        first_indices = np.concatenate([[0], np.cumsum([shard.samples for shard in shards])])
        position = 0
        for number in shuffled(len(shards), self.sampler.seed, epoch):
            shard, end = shards[number], position + shards[number].samples
            if end > start and position < stop:
                at = max(start, position)
                for block in stream_shard(self.source, shard, at - position, self.hashed):
                    if at < stop:  # a shard that is shared with another rank is read to its end, to be checked
                        index, taken = int(first_indices[number]) + at - position, min(len(block), stop - at)
                        yield block[:taken], np.arange(index, index + taken)
                    elif not self.hashed:
                        break
                    at += len(block)
            position = end


class _StepDataset(IterableDataset):
    """``EpochReader.steps`` for DataLoader workers. Errors are yielded as text: raised, they would be tracebacks."""

    def __init__(self, reader: EpochReader, first: int, last: int) -> None:
        self.reader, self.first, self.last = reader, first, last

    def __iter__(self) -> Iterator[ImagesAndIndices | str]:
        info = get_worker_info()
        assert info is not None
        torch.set_num_threads(1)
        try:
            yield from self.reader.steps(self.first, self.last, info.id, info.num_workers)
        except LoaderError as error:
            yield str(error)


class StreamingLoader:
    """Batches of a split that is read as a stream, by a thread of this process or by worker processes."""

    def __init__(self, source: ShardSource, window: int, hashed: bool, device: torch.device, workers: int) -> None:
        """Loads from ``source``.

        Args:
            source: The shards.
            window: Samples that are shuffled among each other.
            hashed: Whether to compare the shards with the manifest's SHA-256 as they are read.
            device: Device of the batches.
            workers: Processes that read; 0 reads in a thread.
        """
        self.source, self.window, self.hashed, self.device, self.workers = source, window, hashed, device, workers
        self._prefetcher: Prefetcher[ImagesAndIndices | str] | None = None
        self._waited_before = 0.0

    @property
    def waited_seconds(self) -> float:
        """Time that the trainer has spent waiting for batches so far."""
        return self._waited_before + (self._prefetcher.waited_seconds if self._prefetcher else 0.0)

    def batches(self, sampler: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Yields the batches of optimizer steps ``first`` … ``last`` − 1, read up to ``prefetch`` ahead.

        Raises:
            LoaderError: A shard is damaged or cannot be read.
        """
        self._waited_before = self.waited_seconds
        reader = EpochReader(self.source, sampler, self.window, self.hashed)
        by_thread = reader.steps(first, last, 0, 1)
        items = self._by_workers(reader, first, last, prefetch) if self.workers else by_thread
        self._prefetcher = Prefetcher(items, 1 if self.workers else prefetch)
        for item in self._prefetcher:
            if isinstance(item, str):
                raise LoaderError(item)
            images, indices = (part.to(self.device, non_blocking=True) for part in item)
            yield Batch(images.permute(0, 3, 1, 2), indices)

    def _by_workers(
        self, reader: EpochReader, first: int, last: int, prefetch: int
    ) -> Generator[ImagesAndIndices | str]:
        yield from DataLoader(
            _StepDataset(reader, first, last),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=max(1, prefetch // self.workers),
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="forkserver",  # this process has threads, which a fork would not survive
        )
