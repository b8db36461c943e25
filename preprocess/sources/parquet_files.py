"""Which parquet files make up a source, in which order, and which split each of them is.

This module and its neighbors are the only ones that need pyarrow, an extra.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.errors import UsageError
from preprocess.shards.manifest import SPLITS
from preprocess.sources.index import SPLIT_NAMES

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]

_FILE_SPLIT, _FOLDER_SPLIT = re.compile(r"([a-z]+)[-_.]"), re.compile(r"(?:partial-)?([a-z]+)$")
# below --source; the hub's own conversion has CONFIGURATION/SPLIT/0000.parquet
_PLACES = ("*.parquet", "data/*.parquet", "*/*.parquet", "*/*/*.parquet")
# a buffered reader allocates whatever a page claims to have, so what is small is read without; the sizes that the
# metadata states are not asked for: pyarrow ends the process where they contradict each other
_BUFFER, _SMALL = 1 << 20, 1 << 26
_FOOTER_END = 8  # a parquet file ends with the length of its footer and the letters PAR1


@dataclass(frozen=True)
class ParquetPart:
    """One file: where it is, which split its name says (-1: none), and what names its content."""

    path: Path
    split: int
    rows: int
    footer_sha256: str


def holds_parquet(folder: Path) -> bool:
    """Whether there are parquet files in a folder."""
    return bool(_listed(folder))


def list_parts(path: Path) -> list[ParquetPart]:
    """The parquet files of a source: train first, then valid and test, each by name.

    Raises:
        UsageError: pyarrow is missing, there are no such files, or one of them is damaged.
    """
    paths = [path] if path.is_file() else _listed(path)
    if not paths:
        raise UsageError(f"{path} holds no parquet files: looked for *.parquet and data/*.parquet")
    parts = [_part(each) for each in paths]
    return sorted(parts, key=lambda part: (part.split % (len(SPLITS) + 1), str(part.path)))


def open_parquet_file(path: Path) -> ParquetFile:
    """Opens one file for reading page by page, which keeps memory flat however large its row groups are.

    Raises:
        UsageError: pyarrow is missing, or the file is damaged.
    """
    parquet = _import_parquet()
    with one_sentence(path):
        size = path.stat().st_size
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER if size > _SMALL else 0)
        if file.metadata.num_rows > size:
            raise UsageError(f"{path} is damaged: it claims {file.metadata.num_rows:,} rows; download it again")
        return file


@contextlib.contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns whatever pyarrow raises on damaged files into a UsageError that names the file."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{path} is damaged, or no whole parquet file ({reason}); download it again") from None


def split_of(path: Path) -> int:
    """0 train, 1 valid, 2 test as the file's name or its folder's says; -1 where neither does."""
    for word in (_FILE_SPLIT.match(path.name.lower()), _FOLDER_SPLIT.match(path.resolve().parent.name.lower())):
        if word and word[1] in SPLIT_NAMES:
            return SPLIT_NAMES[word[1]]
    return -1


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("reading parquet files needs pyarrow: pip install 'mmd-vlae[parquet]'") from None
    return parquet


def _listed(folder: Path) -> list[Path]:
    found = (sorted(path for path in folder.glob(place) if path.is_file()) for place in _PLACES)
    return next(filter(None, found), [])


def _part(path: Path) -> ParquetPart:
    rows = open_parquet_file(path).metadata.num_rows
    return ParquetPart(path, split_of(path), rows, _footer_sha256(path))


def _footer_sha256(path: Path) -> str:
    """Of the footer: it holds the place, size and number of values of every column chunk, so new content changes it."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(size - _FOOTER_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _FOOTER_END - length))
        return hashlib.sha256(file.read()).hexdigest()
