"""The parquet files of a source: which they are, which split each is, and how their columns and images are read.

This module and celeba_parquet are the only ones that need pyarrow, an extra.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.containers.container import printable
from preprocess.containers.file_kinds import ignored_folder, is_parquet_name
from preprocess.containers.folder import is_folder, scan
from preprocess.errors import UnreadableImage, UsageError, UserError, first_line
from preprocess.shards.manifest import SPLITS
from preprocess.sources.index import SPLIT_NAMES

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]

_FILE_SPLIT, _FOLDER_SPLIT = re.compile(r"([a-z]+)[-_.]"), re.compile(r"(?:partial-)?([a-z]+)$")
_HIVE_SPLIT = re.compile(r"(?:split|partition|set|subset)=([a-z0-9]+)$")
_DEPTH = 3  # folders below --source; the hub's own conversion has CONFIGURATION/SPLIT/0000.parquet
# a buffered reader allocates the size that a page claims, so small files are read without a buffer; the sizes in the
# metadata are not asked for: pyarrow ends the process where they contradict each other
_BUFFER, _SMALL = 1 << 20, 1 << 26
_FOOTER_END = 8  # a parquet file ends with the length of its footer and the letters PAR1
_ROWS_AT_A_TIME = 128


@dataclass(frozen=True)
class ParquetPart:
    """One file.

    Attributes:
        path: of the file.
        split: the one that its name or folder says, an index into manifest.SPLITS, or -1.
        rows: how many it has.
        footer_sha256: identifies its content.
    """

    path: Path
    split: int
    rows: int
    footer_sha256: str


def list_parts(path: Path) -> list[ParquetPart]:
    """Lists the parquet files of a source: train first, then valid and test, each by name.

    Raises:
        UsageError: pyarrow is missing, there are no such files, or one of them is damaged.
    """
    paths = [path] if path.is_file() else list_paths(path)[0]
    if not paths:
        raise UsageError(f"{path} holds no parquet files: looked for *.parquet there and in folders below")
    parts = [_part(each) for each in paths]
    return sorted(parts, key=lambda part: (part.split % (len(SPLITS) + 1), str(part.path)))


def list_paths(folder: Path) -> tuple[list[Path], list[Path]]:
    """Lists the parquet files of a folder: those of the first level that has any, and those further below.

    Files of the folder `data` are on a level of their own, as on the hub.
    """
    levels: list[list[Path]] = []
    folders = [folder]
    for depth in range(_DEPTH):
        entries = [(each, entry) for each in folders for entry in scan(each)]
        levels.append(sorted(each / e.name for each, e in entries if is_parquet_name(e.name) and e.is_file()))
        folders = sorted(each / e.name for each, e in entries if is_folder(e) and not ignored_folder(e.name))
        if depth == 0 and folder / "data" in folders:
            levels.append(sorted(p for p in (folder / "data").iterdir() if is_parquet_name(p.name) and p.is_file()))
    first, *others = [level for level in levels if level] or [[]]
    return first, [path for level in others for path in level if path not in first]


def open_parquet_file(path: Path) -> ParquetFile:
    """Opens one file for reading page by page, which keeps memory flat even where its row groups are large.

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
    """Turns the many errors of pyarrow on damaged files into a UsageError that names the file."""
    try:
        yield
    except UsageError:
        raise
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:
        reason = printable(first_line(error))
        raise UsageError(f"{path} is damaged, or not a whole parquet file ({reason}); download it again") from None


def read_columns(part: ParquetPart, columns: list[str]) -> Any:
    """Reads some columns of a file as a pyarrow table.

    Raises:
        UsageError: the file is damaged.
    """
    with one_sentence(part.path):
        table = open_parquet_file(part.path).read(columns=columns)
        if columns and table.num_rows != part.rows:
            raise UsageError(f"{part.path} is damaged: it announces {part.rows:,} rows and has {table.num_rows:,}")
        return table


def read_images(parts: list[ParquetPart], column: str, paths: list[str]) -> Iterator[bytes | UnreadableImage]:
    """Yields the bytes of every image, in order, or why there are none.

    Args:
        parts: the files.
        column: of images: a struct with a field `bytes`, or plain bytes.
        paths: the path of each image, for the message where there is nothing else.

    Raises:
        UserError: a file is damaged.
    """
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    row = 0
    for part in parts:
        try:
            file = open_parquet_file(part.path)
            in_struct = pa.types.is_struct(file.schema_arrow.field(column).type)
            wanted = f"{column}.bytes" if in_struct else column
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=[wanted]):
                images = batch.column(0).field("bytes") if in_struct else batch.column(0)
                for image in images:
                    content = image.as_py()
                    yield _without_bytes(paths[row]) if content is None else content
                    row += 1
        except UsageError:
            raise
        except Exception as error:  # pyarrow raises nearly anything on hostile files
            raise UserError(f"{part.path} is damaged ({printable(first_line(error))}): download it again") from None


def class_names(schema: Any) -> dict[str, list[str]]:
    """The names of classes that Hugging Face's metadata give for columns: column -> names."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {column: feature.get("names") for column, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        column: names
        for column, names in found.items()
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    }


def is_text(kind: Any) -> bool:
    """Whether a column's type is text in one of its forms."""
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    types = pa.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_bytes(kind: Any) -> bool:
    """Whether a column's type is bytes in one of its forms."""
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def split_of(path: Path) -> int:
    """The split that a file's name or a folder above it says, an index into manifest.SPLITS; -1 where none does."""
    folders = [folder.name.lower() for folder in path.resolve().parents[:_DEPTH]]
    words = [_FILE_SPLIT.match(path.name.lower()), *map(_FOLDER_SPLIT.match, folders[:1])]
    words += map(_HIVE_SPLIT.match, folders)
    for word in words:
        if word and word[1] in SPLIT_NAMES:
            return SPLIT_NAMES[word[1]]
        if word and word[1] in {"0", "1", "2"}:
            return int(word[1])
    return -1


def _without_bytes(path: str) -> UnreadableImage:
    if not path:
        return UnreadableImage("no image in this row of the file")
    return UnreadableImage(
        f"only a path in the file ({printable(path)[:100]}), not the image: get the data set with its images embedded"
    )


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("reading parquet files needs pyarrow: pip install 'mmd-vlae[parquet]'") from None
    return parquet


def _part(path: Path) -> ParquetPart:
    rows = open_parquet_file(path).metadata.num_rows
    return ParquetPart(path, split_of(path), rows, _footer_sha256(path))


def _footer_sha256(path: Path) -> str:
    """SHA-256 of the footer: it holds offset, size and count of each column chunk, so new content changes it."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(size - _FOOTER_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _FOOTER_END - length))
        return hashlib.sha256(file.read()).hexdigest()
