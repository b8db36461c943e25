"""Image files unpacked one after the other into one file, for sources that cannot be read at random.

Shards hold a seeded permutation of a split, and a parquet file gives up one image only with the hundreds around it. So
such a source is read once, in order, into a spool, and the shards are made from that: memory stays flat and every
image is unpacked once. The spool lies in the run's scratch folder and goes with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.errors import UnreadableImage
from preprocess.sources.archives import MAX_FILE_BYTES, decoded

SPOOL_NAME, ENDS_NAME = "images.spool", "images.ends"
_BUFFER = 1 << 20


def write_spool(folder: Path, files: Iterator[bytes]) -> None:
    """Writes the files' contents to images.spool, and where each ends (int64) to images.ends.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    end = 0
    with (folder / SPOOL_NAME).open("wb", _BUFFER) as spool, (folder / ENDS_NAME).open("wb", _BUFFER) as ends:
        for content in files:
            end += spool.write(content)
            ends.write(end.to_bytes(8, "little"))


@dataclass(frozen=True)
class SpoolImages:
    """Chosen images of a spool."""

    folder: str
    rows: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def files(self) -> Iterator[bytes | UnreadableImage]:
        """The files' contents, in order."""
        ends = np.fromfile(Path(self.folder) / ENDS_NAME, "<i8")
        handle = os.open(Path(self.folder) / SPOOL_NAME, os.O_RDONLY)
        try:
            for row in self.rows:
                start = int(ends[row - 1]) if row else 0
                size = int(ends[row]) - start
                if size > MAX_FILE_BYTES:
                    yield UnreadableImage(f"has {size:,} bytes")
                else:
                    yield os.pread(handle, size, start)
        finally:
            os.close(handle)

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        return decoded(self.files())
