"""The streamed feed: shards read from any address as they come, shuffled inside a window.

An epoch is the shards in a seeded order, laid end to end. It is cut into equal runs of samples, one a rank, and those
into runs of whole batches, one a worker, so that every rank has the same number of batches and nothing is read twice
or left out, except what does not fill a global batch. Inside its run a worker shuffles one window after the other.
All of that is arithmetic on the manifest: a resumed run opens the shard in which it stopped, and no earlier one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.data.mapped import Batch, LoaderError
from pipeline.data.sampler import GlobalBatchSampler, shuffled
from pipeline.data.shard_reader import stream_shard
from pipeline.data.shard_source import ShardSource

DEFAULT_WINDOW = 8192

Made = tuple[Tensor, Tensor] | str
"""Images (B, H, W, C) uint8 and rows (B,) int64, or why there are none."""


@dataclass(frozen=True)
class Part:
    """A worker's part of an epoch: ``batches`` whole batches, from sample ``start`` of the sequence of shards on."""

    start: int
    batches: int


def part_of(plan: GlobalBatchSampler, worker: int, workers: int) -> Part:
    """The part of an epoch that ``worker`` reads on ``plan.rank``: it makes batches worker, worker + workers, …"""
    sizes = [len(range(w, plan.batches_per_epoch, workers)) for w in range(workers)]
    before = plan.rank * plan.batches_per_epoch + sum(sizes[:worker])
    return Part(before * plan.local_batch_size, sizes[worker])


@dataclass(frozen=True)
class EpochReader:
    """Reads one rank's batches of one epoch after the other."""

    source: ShardSource
    plan: GlobalBatchSampler
    window: int
    hashed: bool

    def samples(self, epoch: int, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(images, rows) blocks of positions ``start`` … ``stop`` of the epoch's sequence of shards."""
        shards = self.source.shards("train")
        first_rows = np.concatenate([[0], np.cumsum([shard.samples for shard in shards])])
        position = 0
        for index in shuffled(len(shards), self.plan.seed, epoch):
            shard, end = shards[index], position + shards[index].samples
            if end > start and position < stop:
                at = max(start, position)
                for block in stream_shard(self.source, shard, at - position, self.hashed):
                    if at < stop:  # a shard that is shared with another rank is read to its end, to be checked
                        row, taken = int(first_rows[index]) + at - position, min(len(block), stop - at)
                        yield block[:taken], np.arange(row, row + taken)
                    elif not self.hashed:
                        break
                    at += len(block)
            position = end

    def batches(self, epoch: int, worker: int, workers: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one worker in one epoch but for the first ``skip``: images (B, H, W, C) uint8 and rows (B,)."""
        size, part = self.plan.local_batch_size, part_of(self.plan, worker, workers)
        a_window = max(1, self.window // size)  # batches
        first_window = skip // a_window
        begin, end = part.start + first_window * a_window * size, part.start + part.batches * size
        blocks = self.samples(epoch, begin, end)
        images = np.empty((a_window * size, *self.source.manifest.image_shape), np.uint8)
        rows = np.empty(a_window * size, np.int64)
        rest: tuple[np.ndarray, np.ndarray] | None = None
        for number in range(first_window * a_window, part.batches, a_window):
            wanted = min(a_window, part.batches - number) * size
            filled = 0
            while filled < wanted:
                block, block_rows = rest or next(blocks)
                take = min(len(block), wanted - filled)
                images[filled : filled + take], rows[filled : filled + take] = block[:take], block_rows[:take]
                rest = (block[take:], block_rows[take:]) if take < len(block) else None
                filled += take
            order = torch.from_numpy(shuffled(wanted, self.plan.seed, epoch, part.start + number))
            for batch in range(max(number, skip), number + wanted // size):
                chosen = order[(batch - number) * size : (batch - number + 1) * size]
                yield torch.from_numpy(images).index_select(0, chosen), torch.from_numpy(rows).index_select(0, chosen)
        for _ in blocks:  # to the end of the last shard, whose content is compared there
            pass

    def steps(self, first: int, last: int, worker: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What DataLoader worker ``worker`` makes of steps ``first`` … ``last`` − 1: every ``workers``-th, in order."""
        plan, step = self.plan, first + worker
        while step < last:
            epoch, batch = divmod(step, plan.batches_per_epoch)
            for images_and_rows in self.batches(epoch, batch % workers, workers, batch // workers):
                if step >= last:
                    return
                yield images_and_rows
                step += workers


class _Steps(IterableDataset):
    """``EpochReader.steps`` as DataLoader workers want it."""

    def __init__(self, reader: EpochReader, first: int, last: int) -> None:
        self.reader, self.first, self.last = reader, first, last

    def __iter__(self) -> Iterator[Made]:
        info = get_worker_info()
        assert info is not None
        torch.set_num_threads(1)
        try:
            yield from self.reader.steps(self.first, self.last, info.id, info.num_workers)
        except LoaderError as error:
            yield str(error)  # an exception would arrive wrapped in a traceback's text


class StreamingLoader:
    """Batches of a split that is read as a stream, by a thread of this process or by ``workers`` others."""

    def __init__(self, source: ShardSource, window: int, hashed: bool, device: torch.device, workers: int) -> None:
        """``window`` samples are shuffled among each other; ``hashed``: see ``stream_shard``."""
        self.source, self.window, self.hashed, self.device, self.workers = source, window, hashed, device, workers
        self.waited_seconds = 0.0

    def batches(self, plan: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """The batches of optimizer steps ``first`` … ``last`` − 1, read up to ``prefetch`` ahead. Raises LoaderError."""
        reader = EpochReader(self.source, plan, self.window, self.hashed)
        make = self._by_workers if self.workers else self._by_thread
        made = make(reader, first, last, prefetch)
        try:
            for _ in range(first, last):
                begin = time.perf_counter()
                item = next(made)
                self.waited_seconds += time.perf_counter() - begin
                if isinstance(item, str):
                    raise LoaderError(item)
                images, rows = (part.to(self.device, non_blocking=True) for part in item)
                yield Batch(images.permute(0, 3, 1, 2), rows)
        finally:
            made.close()

    def _by_workers(self, reader: EpochReader, first: int, last: int, prefetch: int) -> Generator[Made]:
        loader = DataLoader(
            _Steps(reader, first, last),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=max(1, prefetch // self.workers),
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="forkserver",  # this process has threads, which a fork would not survive
        )
        yield from loader

    def _by_thread(self, reader: EpochReader, first: int, last: int, prefetch: int) -> Generator[Made]:
        ready: queue.Queue[Made | BaseException] = queue.Queue()
        room = threading.Semaphore(prefetch)
        stop = threading.Event()

        def read_all() -> None:
            try:
                for item in reader.steps(first, last, 0, 1):
                    room.acquire()
                    if stop.is_set():
                        return
                    ready.put(item)
            except LoaderError as error:
                ready.put(str(error))
            except BaseException as error:
                ready.put(error)

        thread = threading.Thread(target=read_all, name="feed", daemon=True)
        thread.start()
        try:
            for _ in range(first, last):
                item = ready.get()
                room.release()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            room.release()
            thread.join()


def load_images(source: ShardSource, split: str, limit: int, hashed: bool) -> Tensor:
    """The first ``limit`` images of a split in memory: (n, H, W, C) uint8. Raises LoaderError."""
    shards = source.shards(split)
    count = min(limit, sum(shard.samples for shard in shards))
    images = torch.empty((count, *source.manifest.image_shape), dtype=torch.uint8)
    filled = 0
    for shard in shards:
        if filled == count:
            break
        for block in stream_shard(source, shard, 0, hashed):
            taken = min(len(block), count - filled)
            images[filled : filled + taken] = torch.from_numpy(block[:taken].copy())
            filled += taken
    return images
