"""What the columns of Hugging Face's CelebA files mean, recognized by name and type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK
from preprocess.shards.manifest import SPLITS
from preprocess.sources.index import SPLIT_NAMES
from preprocess.sources.parquet_files import ParquetPart, one_sentence, open_parquet_file

_IDENTITY_NAMES = ("celeb_id", "identity", "identity_id")
_LABEL_NAMES = ("label",)
_SPLIT_COLUMNS = ("split", "partition")  # of numbers as in CelebA's partition list, or of the splits' names
_MAX_NUMBER, _MAX_PIXEL = 2**62, 10**6
LANDMARK_NAMES = tuple(
    f"{place}_{axis}" for place in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)


@dataclass(frozen=True)
class ParquetTable:
    """Everything but the images' bytes, one row per image of all files.

    Attributes:
        image: name of the struct column {bytes, path}.
        paths: each image's path as the file gives it, a name and never a place; "" where it gives none.
        attribute_names: of the boolean columns (or whole numbers 0/1, or ±1).
        attributes: int8 (n, A), 1, 0, or -1 where null.
        identity: int64 (n,), -1 where absent.
        label: int64 (n,), -1 where absent.
        split: int8 (n,), an index into manifest.SPLITS, or -1 where no column says.
        landmark_names: of the columns of whole pixels that CelebA's landmark list has; all ten or none.
        landmarks: int32 (n, L), NO_LANDMARK where null.
        identity_known: whether there is a column of identities.
        ignored: names of the columns that mean nothing here.
    """

    image: str
    paths: list[str]
    attribute_names: tuple[str, ...]
    attributes: np.ndarray
    identity: np.ndarray
    label: np.ndarray
    split: np.ndarray
    landmark_names: tuple[str, ...]
    landmarks: np.ndarray
    identity_known: bool
    ignored: tuple[str, ...]


def read_table(parts: list[ParquetPart]) -> ParquetTable:
    """Reads all columns but the images' bytes.

    Raises:
        UsageError: a file has no images, other columns than the first, or attributes that are neither 0/1 nor ±1.
    """
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    with one_sentence(parts[0].path):
        schema = open_parquet_file(parts[0].path).schema_arrow
        image = _image_column(schema, parts[0])
    plain = [field.name for field in schema if pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)]
    columns = _read_columns(parts, schema, image, plain)
    identity_name = next((name for name in _IDENTITY_NAMES if name in columns), None)
    label_name = next((name for name in _LABEL_NAMES if name in columns), None)
    landmark_names = LANDMARK_NAMES if set(LANDMARK_NAMES) <= set(plain) else ()
    split_name, split = _split(parts, schema)
    others = {*_IDENTITY_NAMES, *_LABEL_NAMES, *LANDMARK_NAMES, split_name}
    candidates = [name for name in plain if name not in others]
    names = tuple(name for name in candidates if _is_attribute(columns[name]))
    used = {image, identity_name, label_name, split_name, *names, *landmark_names}
    rows = sum(part.rows for part in parts)
    return ParquetTable(
        image=image,
        paths=columns[image],
        attribute_names=names,
        attributes=_attributes([columns[name] for name in names], rows, parts),
        identity=_numbers(columns.get(identity_name or ""), rows),
        label=_numbers(columns.get(label_name or ""), rows),
        split=split,
        landmark_names=landmark_names,
        landmarks=_landmarks([columns[name] for name in landmark_names], rows),
        identity_known=identity_name is not None,
        ignored=tuple(field.name for field in schema if field.name not in used),
    )


def _image_column(schema: Any, part: ParquetPart) -> str:
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    structs = [field.name for field in schema if pa.types.is_struct(field.type) and _holds_images(field.type)]
    plain = [field.name for field in schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)]
    for found in (structs, plain):
        if "image" in found or len(found) == 1:
            return "image" if "image" in found else found[0]
    raise UsageError(
        f"{part.path} has no column `image` of {{bytes, path}} or of bytes: it is not a Hugging Face image file"
    )


def _split(parts: list[ParquetPart], schema: Any) -> tuple[str, np.ndarray]:
    """The column of splits ("" where there is none), and an index into manifest.SPLITS for each row (or -1)."""
    for name in (name for name in _SPLIT_COLUMNS if name in schema.names):
        values = [value for part in parts for value in _read(part, [name])[name].to_pylist()]
        split = [_split_index(value) for value in values]
        if min(split, default=-1) >= 0:
            return name, np.array(split, np.int8)
    return "", np.full(sum(part.rows for part in parts), -1, np.int8)


def _split_index(value: object) -> int:
    if isinstance(value, str):
        return SPLIT_NAMES.get(value.lower(), -1)
    return value if isinstance(value, int) and value in range(len(SPLITS)) else -1


def _holds_images(struct: Any) -> bool:
    """Whether there are bytes, and where there are paths, texts."""
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    kinds = {field.name: field.type for field in struct}
    has_bytes = "bytes" in kinds and (pa.types.is_binary(kinds["bytes"]) or pa.types.is_large_binary(kinds["bytes"]))
    return has_bytes and ("path" not in kinds or pa.types.is_string(kinds["path"]))


def _read_columns(parts: list[ParquetPart], schema: Any, image: str, plain: list[str]) -> dict[str, Any]:
    """Paths as a list of str, each plain column as int64 (n,) with the smallest number where null."""
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    kind = schema.field(image).type
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    paths: list[str] = []
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in plain}
    for part in parts:
        if not open_parquet_file(part.path).schema_arrow.equals(schema):
            raise UsageError(f"{part.path} has other columns than {parts[0].path}: point --source to files of one kind")
        with one_sentence(part.path):
            table = _read(part, [*plain, *([f"{image}.path"] if has_path else [])])
            if (plain or has_path) and table.num_rows != part.rows:
                raise UsageError(f"{part.path} is damaged: it announces {part.rows:,} rows and has {table.num_rows:,}")
            for name in plain:
                numbers = table[name].cast(pa.int64(), safe=False).fill_null(_NULL)
                chunks[name].append(numbers.to_numpy())
            if has_path:
                paths += [row["path"] or "" if row else "" for row in table[image].to_pylist()]
            else:
                paths += [""] * part.rows
    return {image: paths, **{name: np.concatenate(found) for name, found in chunks.items()}}


def _read(part: ParquetPart, columns: list[str]) -> Any:
    with one_sentence(part.path):
        return open_parquet_file(part.path).read(columns=columns)


_NULL = int(np.iinfo(np.int64).min)


def _is_attribute(column: np.ndarray) -> bool:
    """Whether a column holds nothing but 0, 1, -1 and nulls."""
    return bool(np.isin(column, (0, 1, -1, _NULL)).all())


def _attributes(columns: list[np.ndarray], rows: int, parts: list[ParquetPart]) -> np.ndarray:
    if not columns:
        return np.empty((rows, 0), np.int8)
    signs = np.stack(columns, axis=1)
    null, no = signs == _NULL, signs == -1
    if no.any() and (signs == 0).any():
        raise UsageError(f"the attributes of {parts[0].path} hold both 0 and -1: which of them means no is not defined")
    signs[no] = 0
    signs[null] = -1
    return signs.astype(np.int8)


def _landmarks(columns: list[np.ndarray], rows: int) -> np.ndarray:
    if not columns:
        return np.empty((rows, 0), np.int32)
    pixels = np.stack(columns, axis=1)
    return np.where(np.abs(pixels) <= _MAX_PIXEL, pixels, NO_LANDMARK).astype(np.int32)


def _numbers(column: np.ndarray | None, rows: int) -> np.ndarray:
    if column is None:
        return np.full(rows, -1, np.int64)
    return np.where((column >= 0) & (column <= _MAX_NUMBER), column, -1)
