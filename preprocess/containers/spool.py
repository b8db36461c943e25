"""Images at known places of one file: an uncompressed tar, or the spool of a source that must be read in order.

Shards hold a seeded permutation of a split. A parquet file or a compressed tar is therefore read once into a spool in
the run's scratch folder, which is deleted with it: memory stays flat, and every image is unpacked once.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.containers.container import MAX_FILE_BYTES, FileReader
from preprocess.errors import UnreadableImage

_CONTENTS, _ENDS = "images.spool", "images.ends"
_END = struct.Struct("<qq")  # where the image's content ends, and whether it is a reason instead
_BUFFER = 1 << 20


def write_spool(folder: Path, files: Iterator[bytes | UnreadableImage]) -> None:
    """Writes the files' contents, or the reasons why they cannot be read, and where each ends.

    Raises:
        OSError: When the disk is full, or the folder cannot be written to.
    """
    end = 0
    with (folder / _CONTENTS).open("wb", _BUFFER) as spool, (folder / _ENDS).open("wb", _BUFFER) as ends:
        for content in files:
            unread = isinstance(content, UnreadableImage)
            end += spool.write(str(content).encode() if unread else content)
            ends.write(_END.pack(end, unread))


@dataclass(frozen=True)
class SpoolImages(FileReader):
    """Chosen images of a spool."""

    folder: str
    rows: list[int]

    def files(self) -> Iterator[bytes | UnreadableImage]:
        ends, unread = np.fromfile(Path(self.folder, _ENDS), "<i8").reshape(-1, 2).T
        starts = np.concatenate([[0], ends])[self.rows]
        spans = np.stack([starts, ends[self.rows] - starts], axis=1)
        contents = SpanImages(f"{self.folder}/{_CONTENTS}", spans).files()
        for content, is_reason in zip(contents, unread[self.rows], strict=True):
            yield UnreadableImage(content.decode()) if is_reason and isinstance(content, bytes) else content


@dataclass(frozen=True)
class SpanImages(FileReader):
    """Images that lie at known places of one file."""

    path: str
    spans: np.ndarray  # int64 (n, 2): offset, bytes

    def files(self) -> Iterator[bytes | UnreadableImage]:
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
            for start, size in self.spans.tolist():
                if size > MAX_FILE_BYTES:
                    yield UnreadableImage(f"has {size:,} bytes")
                else:
                    yield os.pread(file.fileno(), size, start)
