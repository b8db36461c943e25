"""What all loaders have in common: a batch, and the thread that makes batches ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

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


class WaitingLoader:
    """A loader that counts how long the trainer has waited for its batches."""

    waited_seconds = 0.0

    def add_wait(self, seconds: float) -> None:
        """Counts a wait for a batch."""
        self.waited_seconds += seconds


def prefetched(
    items: Generator[T], depth: int, add_wait: Callable[[float], None] = lambda seconds: None
) -> Generator[T]:
    """Yields items in order, made ahead in a thread, whose exception is raised here.

    At most ``depth`` + 1 items exist at a time: the one that the consumer holds, and ``depth`` that are ready or being
    made. An item may therefore live in one of ``depth`` + 1 buffers that are reused in turn.

    Args:
        items: Makes the items.
        depth: How many are made ahead.
        add_wait: Called with the seconds of each wait for an item.

    Raises:
        StoppedWaiting: When a stop was requested, and the next item is not there in ``STOP_SECONDS``.
    """
    ready: queue.Queue[T | BaseException] = queue.Queue()
    free, closed = threading.Semaphore(depth + 1), threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ready, free, closed), name="loader", daemon=True)
    thread.start()
    try:
        while True:
            begin = time.perf_counter()
            item = _next(ready)
            add_wait(time.perf_counter() - begin)
            if isinstance(item, StopIteration):
                return
            if isinstance(item, BaseException):
                raise item
            yield item
            free.release()
    finally:
        closed.set()
        free.release()
        thread.join(JOIN_SECONDS)


def _next(ready: queue.Queue[T | BaseException]) -> T | BaseException:
    waited_since_stop = 0.0
    while waited_since_stop < STOP_SECONDS:
        with contextlib.suppress(queue.Empty):
            return ready.get(timeout=POLL_SECONDS)
        if SIGNALS.stop_requested:
            waited_since_stop += POLL_SECONDS
    return StoppedWaiting()


def _produce(
    items: Generator[T], ready: queue.Queue[T | BaseException], free: threading.Semaphore, closed: threading.Event
) -> None:
    torch.get_num_threads()  # torch sets up a thread's OpenMP at its first use, which would undo the limit
    with contextlib.suppress(Exception):
        # one core keeps up with any model; more would compete with the step's own threads
        threadpool_limits(1, user_api="openmp")
    try:
        while free.acquire() and not closed.is_set():
            ready.put(next(items))
    except BaseException as error:  # StopIteration is the end
        ready.put(error)
    finally:
        items.close()  # worker processes end, files are closed
