"""All npy shards of a split as one strided array in memory, so that a shuffled batch is a single gather.

Each tar is mapped read-only, back to back, into one reserved range of addresses. Tar members start at multiples of
512 bytes, so an image at any record of any shard is a row of one array with a stride of 512 bytes. Training can start
at once. Meanwhile a thread reads the shards in order: into big pages of this process where memory allows (a shuffled
gather over gigabytes of 4 KiB pages spends a third of its time on page walks), otherwise into the page cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from preprocess.shards.manifest import Layout

TAR_BLOCK = 512
_PROT_NONE, _PROT_READ = 0, mmap.PROT_READ
_MAP_FIXED = 0x10
_MAP_PRIVATE = mmap.MAP_PRIVATE
_MAP_ANONYMOUS = mmap.MAP_ANONYMOUS
_MADV_POPULATE_READ = 22  # Linux 5.14; elsewhere the call fails and pages come one by one, as they are touched
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int | None, length: int, protection: int, flags: int, descriptor: int) -> int:
    mapped = _libc.mmap(address, length, protection, flags, descriptor, 0)
    if mapped == _FAILED or mapped is None:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot map {length} bytes: {os.strerror(code)}")
    return mapped


def memory_to_spare() -> int:
    """Bytes that this process may take without a thought: a quarter of what is free, shared by the node's ranks."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # a container's own limit; absent or "max" elsewhere
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _read_into(path: Path, target: memoryview) -> bool:
    """Fills ``target`` from the start of a file. False when the file has become shorter."""
    with path.open("rb", buffering=0) as file:
        filled = 0
        while filled < len(target):
            count = file.readinto(target[filled : filled + (1 << 24)])
            if not count:
                return False
            filled += count
    return True


class ShardRegion:
    """The images of ``paths`` (npy shards of one layout), addressed by row: shard order, then record order."""

    def __init__(self, paths: Sequence[Path], samples: Sequence[int], layout: Layout) -> None:
        """Maps every shard. ``samples`` counts the records of each. Raises OSError when a file cannot be mapped."""
        sizes = [path.stat().st_size for path in paths]
        page = mmap.PAGESIZE
        starts = np.concatenate([[0], np.cumsum([-(-size // page) * page for size in sizes])])
        self._length = int(starts[-1]) + page
        self._base = _map(None, self._length, _PROT_NONE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1)
        for path, start, size in zip(paths, starts[:-1], sizes, strict=True):
            with path.open("rb") as file:
                _map(self._base + int(start), size, _PROT_READ, _MAP_PRIVATE | _MAP_FIXED, file.fileno())
        offsets = starts[:-1] // TAR_BLOCK + layout.image_offset // TAR_BLOCK
        first_rows = np.concatenate([[0], np.cumsum(samples)])[:-1]
        within = np.arange(sum(samples)) - np.repeat(first_rows, samples)
        blocks = np.repeat(offsets, samples) + within * (layout.record_bytes // TAR_BLOCK)
        self._blocks = torch.from_numpy(blocks)  # of each row: the number of the 512-byte block where its image begins
        self._phase, self._image_bytes = layout.image_offset % TAR_BLOCK, layout.image_bytes
        mapped = (ctypes.c_uint8 * (self._length - page)).from_address(self._base)
        self._view = self._strided(torch.frombuffer(mapped, dtype=torch.uint8))
        self._closed = False
        spans = [(path, int(start), size) for path, start, size in zip(paths, starts[:-1], sizes, strict=True)]
        work = self._copy if self._length <= memory_to_spare() else self._populate
        self._reader = threading.Thread(target=work, args=(spans,), name="read ahead", daemon=True)
        self._reader.start()

    def _strided(self, flat: Tensor) -> Tensor:
        """(rows, image_bytes) view of all shards' bytes, a row at each block."""
        rows = max(0, (len(flat) - self._phase - self._image_bytes) // TAR_BLOCK + 1)
        return flat.as_strided((rows, self._image_bytes), (TAR_BLOCK, 1), self._phase)

    def _copy(self, spans: Sequence[tuple[Path, int, int]]) -> None:
        """Reads the shards into big pages of our own and gathers from there as soon as all are in."""
        memory = mmap.mmap(-1, self._length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or a kernel without big pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(memory)
        for path, start, size in spans:
            if self._closed or not _read_into(path, whole[start : start + size]):
                return
        self._view = self._strided(torch.frombuffer(memory, dtype=torch.uint8, count=self._length - mmap.PAGESIZE))

    def _populate(self, spans: Sequence[tuple[Path, int, int]]) -> None:
        """Reads the mapped files ahead in order, as far as memory reaches, so that the first epoch does not seek."""
        left = psutil.virtual_memory().available // 2
        for _, start, size in spans:
            left -= size
            if self._closed or left < 0 or _libc.madvise(self._base + start, size, _MADV_POPULATE_READ):
                return

    def __len__(self) -> int:
        return len(self._blocks)

    def gather(self, rows: Tensor, out: Tensor) -> None:
        """Copies the images at ``rows`` (n,) int64 into ``out`` (n, image_bytes) uint8, releasing the GIL.

        Raises IndexError for a row that is not in the split.
        """
        torch.index_select(self._view, 0, self._blocks.index_select(0, rows), out=out)

    def wait(self) -> None:
        """Until the shards are read ahead."""
        self._reader.join()

    def close(self) -> None:
        """Unmaps everything; no gather may follow."""
        self._closed = True
        self._reader.join()
        if self._base:
            del self._view
            _libc.munmap(self._base, self._length)
            self._base = 0
