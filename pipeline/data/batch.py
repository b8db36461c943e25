"""What all loaders have in common: a batch, the two protocols, and the thread that makes batches ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from pipeline.data.sampler import GlobalBatchSampler
from pipeline.distributed.signals import SIGNALS
from preprocess.errors import UserError

T = TypeVar("T")

POLL_SECONDS = 0.5
STOP_SECONDS = 2.0
"""After a request to stop, the trainer waits this long for a batch that is not there."""
JOIN_SECONDS = 2.0
"""A thread that hangs in a network call is left behind after this time; it ends with the process."""


class Batch(NamedTuple):
    """One rank's part of a global batch, on the device. Valid until the loader is asked for the next batch."""

    images: Tensor
    """(B, C, H, W) uint8, channels-last in memory."""
    indices: Tensor
    """(B,) int64, which samples of the split these are."""


class LoaderError(UserError):
    """The shards cannot be loaded. The message is one sentence for the terminal."""


class StoppedWaiting(Exception):
    """A stop was requested while the trainer waited for a batch."""


class BatchLoader(Protocol):
    """Loads training batches: this rank's part of one global batch after the other."""

    @property
    def waited_seconds(self) -> float:
        """Time that the trainer has spent waiting for batches so far."""
        ...

    def batches(self, sampler: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Yields the batches of optimizer steps ``first`` … ``last`` − 1, made up to ``prefetch`` ahead."""
        ...


class IndexedLoader(Protocol):
    """Loads images for validation and pictures: any samples of a split of ``samples`` images."""

    samples: int
    device: torch.device

    def load(self, indices: np.ndarray) -> Batch:
        """Loads the images at ``indices`` (B,) int64 now."""
        ...


class _End:
    """Marks the end of the items."""


class Prefetcher(Generic[T]):
    """Iterates over ``items`` in a thread, a few items ahead of the consumer.

    At most ``depth`` + 1 items exist at a time: the one that the consumer holds, and ``depth`` that are ready or being
    made. An item may therefore live in one of ``depth`` + 1 buffers that are reused in turn.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        """Starts the thread at once."""
        self.waited_seconds = 0.0
        self._items = items
        self._ready: queue.Queue[T | BaseException | _End] = queue.Queue()
        self._free = threading.Semaphore(depth + 1)
        self._closed = False
        self._thread = threading.Thread(target=self._produce, name="loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Generator[T]:
        """Yields the items in order, once. An exception in the thread is raised here.

        Raises:
            StoppedWaiting: a stop was requested, and the next item is not there in ``STOP_SECONDS``.
        """
        try:
            while True:
                begin = time.perf_counter()
                item = self._next()
                self.waited_seconds += time.perf_counter() - begin
                if isinstance(item, _End):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
                self._free.release()
        finally:
            self.close()

    def close(self) -> None:
        """Ends the thread. Safe to call twice."""
        self._closed = True
        self._free.release()
        self._thread.join(JOIN_SECONDS)

    def _next(self) -> T | BaseException | _End:
        waited_since_stop = 0.0
        while True:
            with contextlib.suppress(queue.Empty):
                return self._ready.get(timeout=POLL_SECONDS)
            if SIGNALS.stop_requested:
                waited_since_stop += POLL_SECONDS
            if waited_since_stop >= STOP_SECONDS:
                return StoppedWaiting()

    def _produce(self) -> None:
        torch.get_num_threads()  # torch sets up a thread's OpenMP at its first use, which would undo the limit
        with contextlib.suppress(Exception):
            # one core keeps up with any model; more would compete with the step's own threads
            threadpool_limits(1, user_api="openmp")
        try:
            while True:
                self._free.acquire()
                if self._closed:
                    return
                item = next(self._items, None)
                if item is None:
                    self._ready.put(_End())
                    return
                self._ready.put(item)
        except BaseException as error:
            self._ready.put(error)
        finally:
            close = getattr(self._items, "close", None)  # of a generator: worker processes end, files are closed
            if close is not None:
                close()
