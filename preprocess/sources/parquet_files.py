"""The parquet files of a source: which they are, which split each is, and how their images are read.

This module and celeba_parquet are the only ones that need pyarrow, an extra.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # pyright: ignore[reportMissingImports]
from pyarrow import parquet  # pyright: ignore[reportMissingImports]

from preprocess.containers.file_kinds import ignored_folder, is_parquet_name, printable, refuse_file, type_of
from preprocess.containers.folder import is_folder, scan
from preprocess.errors import UnreadableImage, UsageError, UserError, first_line
from preprocess.images.file_types import PARQUET
from preprocess.shards.manifest import SPLITS
from preprocess.sources.index import split_named

_FILE_SPLIT = re.compile(r"([a-z]+)[-_.]")
_HIVE_NUMBER = re.compile(r"(?:split|partition|set|subset)=([012])$")
_NUMBERED = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.")
_DEPTH, _NAMED_DEPTH = 6, 3  # folders below --source, as in the hub's cache; folders above a file that may name a split
# a buffered reader allocates the size that a page claims, so small files are read without a buffer; the sizes in the
# metadata are not asked for: pyarrow ends the process where they contradict each other
_BUFFER, _SMALL = 1 << 20, 1 << 26
_FOOTER_END = 8  # a parquet file ends with the length of its footer and the letters PAR1
_ROWS_AT_A_TIME = 128


@dataclass(frozen=True)
class ParquetPart:
    """One file."""

    path: Path
    split: int  # the one that its name or folder says, an index into manifest.SPLITS, or -1
    rows: int
    schema: Any  # of pyarrow
    footer_sha256: str  # changes with the content: the footer holds offset, size and count of each column chunk


def list_parts(path: Path) -> list[ParquetPart]:
    """Lists the parquet files of a source, train first, then valid and test.

    Raises:
        UsageError: When there are no such files, or one of them is damaged.
    """
    paths = [path] if path.is_file() else list_paths(path)[0]
    if not paths:
        raise UsageError(f"{path} holds no parquet files: looked for *.parquet there and in folders below")
    parts = map(_part, paths)
    return sorted(parts, key=lambda part: (part.split % (len(SPLITS) + 1), str(part.path)))


def list_paths(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lists the parquet files of a folder: those of the first level that has any, and those further below.

    Files of the folder `data` are on a level of their own, as on the hub.
    """
    found: list[tuple[int, bool, Path]] = []  # level, whether it is not in `data`, path
    folders = [folder]
    for depth in range(_DEPTH):
        entries = [(each, entry) for each in folders for entry in scan(each)]
        files = [(each, entry.name) for each, entry in entries if is_parquet_name(entry.name) and entry.is_file()]
        found += sorted((depth, each != folder / "data", each / name) for each, name in files)
        folders = sorted(each / e.name for each, e in entries if is_folder(e) and not ignored_folder(e.name))
    first = [path for depth, apart, path in found if (depth, apart) == found[0][:2]]
    return first, [path for _, _, path in found[len(first) :]]


def open_parquet_file(path: Path) -> parquet.ParquetFile:
    """Opens one file for reading page by page, which keeps memory flat even where its row groups are large.

    Raises:
        UsageError: When it is damaged or not a parquet file, or two of its columns have one name.
    """
    with one_sentence(path):
        size = path.stat().st_size
        if type_of(path) is not PARQUET:
            raise refuse_file(path)
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER if size > _SMALL else 0)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise UsageError(f"{path} has two columns of one name ({', '.join(names)}): rename one of them")
        if file.metadata.num_rows > size:
            raise UsageError(f"{path} is damaged: it claims {file.metadata.num_rows:,} rows; download it again")
        return file


@contextlib.contextmanager
def one_sentence(path: Path, kind: type[UserError] = UsageError) -> Iterator[None]:
    """Turns the many errors of pyarrow on damaged files into an error for users that names the file.

    Raises:
        UsageError: When the file cannot be read, and whenever the block raises it.
        UserError: Of the class `kind`, in place of any other error.
    """
    try:
        yield
    except UsageError:
        raise
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:
        reason = printable(first_line(error))
        raise kind(f"{path} is damaged, or not a whole parquet file ({reason}); download it again") from None


def read_images(parts: Sequence[ParquetPart], column: str, paths: Sequence[str]) -> Iterator[bytes | UnreadableImage]:
    """Yields the bytes of every image, in order, or why there are none.

    Args:
        parts: the files.
        column: of images: a struct with a field `bytes`, or plain bytes.
        paths: the path of each image, for messages.

    Raises:
        UserError: When a file is damaged.
    """
    rows = iter(paths)
    for part in parts:
        with one_sentence(part.path, UserError):
            in_struct = pa.types.is_struct(part.schema.field(column).type)
            wanted = [f"{column}.bytes" if in_struct else column]
            for batch in open_parquet_file(part.path).iter_batches(_ROWS_AT_A_TIME, columns=wanted):
                images = batch.column(0).field("bytes") if in_struct else batch.column(0)
                for image, path in zip(images, rows, strict=False):
                    content = image.as_py()
                    yield _without_bytes(path) if content is None else bytes(content)


def _without_bytes(path: str) -> UnreadableImage:
    if not path:
        return UnreadableImage("no image in this row of the file")
    return UnreadableImage(
        f"only a path in the file ({printable(path)[:100]}), not the image: get the data set with its images embedded"
    )


def class_names(schema: Any) -> dict[str, list[str]]:
    """The names of classes that Hugging Face's metadata give for columns: column -> names."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    lists = {column: names for column, names in found.items() if isinstance(names, list) and names}
    return {column: names for column, names in lists.items() if all(isinstance(name, str) for name in names)}


def is_text(kind: Any) -> bool:
    """Whether a column's type is text in one of its forms."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes in one of its forms."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.types.is_uint8(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def split_of(path: Path) -> int:
    """The split that a file's name or a folder above it says, an index into manifest.SPLITS; -1 where none does."""
    folders = [folder.name.lower() for folder in path.absolute().parents[:_NAMED_DEPTH]]
    own = _FILE_SPLIT.match(path.name.lower())
    words = [*([own[1]] if own else []), *folders[:1], *(folder for folder in folders if "=" in folder)]
    named = (split_named(word) for word in words)
    numbered = (int(number[1]) for folder in folders if (number := _HIVE_NUMBER.match(folder)))
    return next((split for split in named if split >= 0), next(numbered, -1))


def missing_parts(parts: list[ParquetPart]) -> list[str]:
    """A note where files named `…-00000-of-00003` are not all there."""
    sets: dict[tuple[str, str], set[str]] = {}
    for part in parts:
        if name := _NUMBERED.match(part.path.name):
            sets.setdefault((str(part.path.parent / name[1]), name[3]), set()).add(name[2])
    return [
        f"{int(total) - len(held):,} of {int(total):,} files {printable(name)}-…-of-{total} are missing: download them"
        for (name, total), held in sets.items()
        if len(held) < int(total)
    ]


def _part(path: Path) -> ParquetPart:
    file = open_parquet_file(path)
    with path.open("rb") as footer:
        size = path.stat().st_size
        footer.seek(size - _FOOTER_END)
        length = int.from_bytes(footer.read(4), "little")
        footer.seek(max(0, size - _FOOTER_END - length))
        digest = hashlib.sha256(footer.read()).hexdigest()
    return ParquetPart(path, split_of(path), file.metadata.num_rows, file.schema_arrow, digest)
