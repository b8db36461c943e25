"""One scratch file with the images of a source that cannot be read at random.

Shards hold a seeded permutation of a split, while a parquet file or a compressed tar must be read in order. Such a
source is read once into a spool, and the shards are made from that: memory stays flat and every image is unpacked
once. The spool lies in the run's scratch folder and is deleted with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.containers.container import MAX_FILE_BYTES, FileReader
from preprocess.errors import UnreadableImage

SPOOL_NAME, ENDS_NAME, REASONS_NAME = "images.spool", "images.ends", "images.reasons"
_BUFFER = 1 << 20


def write_spool(folder: Path, files: Iterator[bytes | UnreadableImage]) -> None:
    """Writes the files' contents to images.spool, and where each ends (int64) to images.ends.

    A file that cannot be read takes no bytes; images.reasons says why, one JSON line `[number, reason]` for each.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    end = 0
    with (
        (folder / SPOOL_NAME).open("wb", _BUFFER) as spool,
        (folder / ENDS_NAME).open("wb", _BUFFER) as ends,
        (folder / REASONS_NAME).open("w", encoding="ascii") as reasons,
    ):
        for number, content in enumerate(files):
            if isinstance(content, UnreadableImage):
                reasons.write(json.dumps([number, str(content)]) + "\n")
            else:
                end += spool.write(content)
            ends.write(end.to_bytes(8, "little"))


@dataclass(frozen=True)
class SpoolImages(FileReader):
    """Chosen images of a spool."""

    folder: str
    rows: list[int]

    def files(self) -> Iterator[bytes | UnreadableImage]:
        folder = Path(self.folder)
        ends = np.fromfile(folder / ENDS_NAME, "<i8")
        with (folder / REASONS_NAME).open(encoding="ascii") as lines:
            reasons: dict[int, str] = dict(map(json.loads, lines))
        rows = np.array(self.rows, np.int64)
        starts = np.where(rows > 0, ends[rows - 1], 0)
        spans = SpanImages(str(folder / SPOOL_NAME), np.stack([starts, ends[rows] - starts], axis=1))
        for row, content in zip(self.rows, spans.files(), strict=True):
            yield UnreadableImage(reasons[row]) if row in reasons else content


@dataclass(frozen=True)
class SpanImages(FileReader):
    """Images that lie one after the other in one file: a spool, or an uncompressed tar."""

    path: str
    spans: np.ndarray  # int64 (n, 2): offset, bytes

    def files(self) -> Iterator[bytes | UnreadableImage]:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            for start, size in self.spans.tolist():
                if size > MAX_FILE_BYTES:
                    yield UnreadableImage(f"has {size:,} bytes")
                else:
                    yield os.pread(handle, size, start)
        finally:
            os.close(handle)
