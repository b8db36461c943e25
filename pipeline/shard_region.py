"""All npy shards of a split as one strided array in memory, so that a shuffled batch is a single gather.

Each tar is mapped read-only, back to back, into one reserved range of addresses. Tar members start at multiples of
512 bytes, so an image at any record of any shard is a row of one array with a stride of 512 bytes; nothing is read
until it is gathered and nothing is ever copied but the batch itself.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from preprocess.manifest import Layout

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


def _populate(spans: Sequence[tuple[int, int]]) -> None:
    """Reads the mapped files into memory in order, so that the first epoch neither seeks nor faults page by page."""
    for address, length in spans:
        if _libc.madvise(address, length, _MADV_POPULATE_READ):
            return


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
        self._first_rows = np.concatenate([[0], np.cumsum(samples)]).astype(np.int64)
        # block number of row r in shard s is _offsets[s] + r * _blocks_a_record
        self._blocks_a_record = layout.record_bytes // TAR_BLOCK
        self._offsets = starts[:-1] // TAR_BLOCK + layout.image_offset // TAR_BLOCK
        self._offsets -= self._first_rows[:-1] * self._blocks_a_record
        phase = layout.image_offset % TAR_BLOCK
        span = self._length - page - phase
        rows = max(0, (span - layout.image_bytes) // TAR_BLOCK + 1)
        buffer = (ctypes.c_uint8 * span).from_address(self._base + phase)
        flat = torch.frombuffer(buffer, dtype=torch.uint8)
        self._view = flat.as_strided((rows, layout.image_bytes), (TAR_BLOCK, 1))

        spans = [(self._base + int(start), size) for start, size in zip(starts[:-1], sizes, strict=True)]
        if self._length < os.sysconf("SC_PHYS_PAGES") * page // 2:
            threading.Thread(target=_populate, args=(spans,), name="populate", daemon=True).start()

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        """Copies the images at ``rows`` (n,) int64 into ``out`` (n, image_bytes) uint8, releasing the GIL."""
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"row outside the {len(self)} samples of the split")
        shard = np.searchsorted(self._first_rows, rows, side="right") - 1
        blocks = self._offsets[shard] + rows * self._blocks_a_record
        torch.index_select(self._view, 0, torch.from_numpy(blocks), out=out)

    def close(self) -> None:
        """Unmaps everything; no gather may follow."""
        if self._base:
            del self._view
            _libc.munmap(self._base, self._length)
            self._base = 0
