"""The memory-mapped loader: shuffled batches straight out of npy shards, gathered ahead of the training step.

Each tar is mapped read-only, back to back, into one reserved range of addresses. Tar members start at multiples of
512 bytes, so an image at any record of any shard is a row of one array with a stride of 512 bytes, and a shuffled batch
is a single gather. Training can start at once. Meanwhile a thread reads the shards in order: into big pages of this
process where memory allows (a shuffled gather over gigabytes of 4 KiB pages spends a third of its time on page walks),
otherwise into the page cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from pipeline.data.batch import Batch, LoaderError, WaitingLoader, prefetched
from pipeline.data.sampler import GlobalBatchSampler
from preprocess.shards.reader import ShardSet
from preprocess.shards.tar import BLOCK

_PROT_NONE = 0
_MAP_FIXED = 0x10
_MADV_POPULATE_READ = 22  # Linux 5.14; elsewhere the call fails and pages come one by one, as they are touched
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _map(address: int | None, length: int, protection: int, flags: int, descriptor: int) -> int:
    mapped = _libc.mmap(address, length, protection, mmap.MAP_PRIVATE | flags, descriptor, 0)
    if mapped == _FAILED or mapped is None:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot map {length} bytes: {os.strerror(code)}")
    return mapped


def spare_memory() -> int:
    """Returns the bytes that this process may use for a copy: a quarter of the free memory, divided by local ranks."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container's own limit; absent or "max" elsewhere
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class ShardRegion:
    """The images of npy shards as one array, in the order of shards and then of records."""

    def __init__(self, shards: ShardSet, split: str) -> None:
        """Maps the shards of a split and starts to read ahead.

        Raises:
            LoaderError: When the split is empty, or its shards are of a codec that cannot be mapped.
            OSError: When a file is missing or cannot be mapped.
        """
        manifest, layout = shards.manifest, shards.manifest.layout
        if split not in manifest.splits or not manifest.splits[split].samples:
            raise LoaderError(f"{shards.folder} has no images in its {split} split")
        if layout is None:
            raise LoaderError(
                f"{shards.folder} holds {manifest.codec} members, which cannot be mapped: train with "
                "data.mode=resident or streamed, or make npy shards (`preprocess … --codec npy`)"
            )
        self.image_shape = manifest.image_shape
        paths, samples = shards.shard_paths(split), [shard.samples for shard in manifest.splits[split].shards]
        sizes = [path.stat().st_size for path in paths]
        page = mmap.PAGESIZE
        *starts, end = np.cumsum([0, *(-(-size // page) * page for size in sizes)]).tolist()
        self._files = list(zip(paths, starts, sizes, strict=True))
        self._length = end + page
        self._base = _map(None, self._length, _PROT_NONE, mmap.MAP_ANONYMOUS, -1)
        for path, start, size in self._files:
            with path.open("rb") as file:
                _map(self._base + start, size, mmap.PROT_READ, _MAP_FIXED, file.fileno())
        image, phase = divmod(layout.image_offset, BLOCK)
        firsts = zip(starts, samples, strict=True)
        blocks = [start // BLOCK + image + np.arange(count) * (layout.record_bytes // BLOCK) for start, count in firsts]
        self._blocks = torch.from_numpy(np.concatenate(blocks))
        """(n,) int64: the 512-byte block in which each image begins."""
        rows = max(0, (end - phase - layout.image_bytes) // BLOCK + 1)
        self._strides = (rows, layout.image_bytes), (BLOCK, 1), phase
        self._use((ctypes.c_uint8 * end).from_address(self._base))
        work = self._copy if self._length <= spare_memory() else self._populate
        self.read_ahead = threading.Thread(target=work, name="read ahead", daemon=True)
        self.read_ahead.start()

    def _use(self, memory: ctypes.Array | mmap.mmap) -> None:
        """Gathers from here: a (blocks, image_bytes) view of all shards' bytes, with a row at each block."""
        self._view = torch.frombuffer(memory, dtype=torch.uint8).as_strided(*self._strides)

    def _copy(self) -> None:
        """Reads the shards into big pages of this process and gathers from there as soon as all are read."""
        memory = mmap.mmap(-1, self._length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel without big pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(memory)
        for path, start, size in self._files:
            with path.open("rb") as file:
                if file.readinto(whole[start : start + size]) != size:
                    return  # it has become shorter
        self._use(memory)

    def _populate(self) -> None:
        """Reads the mapped files ahead in order, as far as memory reaches, so that the first epoch does not seek."""
        left = psutil.virtual_memory().available // 2
        for _, start, size in self._files:
            left -= size
            if left < 0 or _libc.madvise(self._base + start, size, _MADV_POPULATE_READ):
                return

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._blocks)

    def gather(self, indices: Tensor, out: Tensor) -> None:
        """Copies images of the split without holding the GIL.

        Args:
            indices: (n,) int64, samples of the split.
            out: (n, image_bytes) uint8, filled.

        Raises:
            IndexError: When an index is not in the split.
        """
        torch.index_select(self._view, 0, self._blocks.index_select(0, indices), out=out)


@dataclass
class _Slot:
    """A batch-sized buffer on the host. The slots are filled in turn."""

    buffer: Tensor
    indices: Tensor
    copied: torch.cuda.Event | None = None
    """Reached when the device no longer reads the buffer."""


class MmapLoader(WaitingLoader):
    """Batches of a split that lies on this machine's disk as npy shards."""

    def __init__(self, region: ShardRegion, device: torch.device) -> None:
        """Loads from ``region`` onto ``device``."""
        self.region, self.device, self.samples = region, device, len(region)

    def load(self, indices: np.ndarray) -> Batch:
        """Loads the images at ``indices`` (B,) int64 now.

        Raises:
            IndexError: When an index is not in the split.
        """
        return self._to_device(self._fill(self._slot(len(indices)), indices))

    def batches(self, sampler: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Yields the batches of optimizer steps ``first`` … ``last`` − 1, gathered up to ``prefetch`` ahead.

        The buffers are reused: fresh ones cost a page fault every 4 KiB, as much as the gather itself.
        """
        slots = [self._slot(sampler.local_batch_size) for _ in range(prefetch + 1)]
        filled = (self._fill(slots[step % len(slots)], sampler.indices(step)) for step in range(first, last))
        for slot in prefetched(filled, prefetch, self.add_wait):
            yield self._to_device(slot)

    def _slot(self, size: int) -> _Slot:
        buffer = torch.empty((size, math.prod(self.region.image_shape)), dtype=torch.uint8, pin_memory=self._on_gpu)
        return _Slot(buffer, torch.empty(0))

    def _fill(self, slot: _Slot, indices: np.ndarray) -> _Slot:
        if slot.copied is not None:
            slot.copied.synchronize()
        slot.indices = torch.tensor(indices)
        self.region.gather(slot.indices, slot.buffer)
        return slot

    def _to_device(self, slot: _Slot) -> Batch:
        images = slot.buffer.view(-1, *self.region.image_shape).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        batch = Batch(images, slot.indices.to(self.device, non_blocking=True))
        if self._on_gpu:
            slot.copied = torch.cuda.Event()
            slot.copied.record()
        return batch

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"
