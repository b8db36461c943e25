"""CelebA as Hugging Face has it: parquet files of images, and columns that are recognized by name and type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # pyright: ignore[reportMissingImports]
import pyarrow.compute as pc  # pyright: ignore[reportMissingImports]

from preprocess.containers.container import IgnoredFile, counted, decoded
from preprocess.containers.file_kinds import printable
from preprocess.containers.spool import SpoolImages, write_spool
from preprocess.errors import UsageError
from preprocess.shards.annotations import NO_LANDMARK, SampleTable
from preprocess.shards.manifest import SPLITS, Source
from preprocess.sources.celeba_layouts import Kind, default_crop, recognized, usual_size
from preprocess.sources.celeba_lists import attribute_code, attribute_values, stem_of
from preprocess.sources.index import (
    Catalogue,
    empty_splits,
    fingerprint,
    group_ignored,
    safe_key,
    seeded_split,
    split_named,
)
from preprocess.sources.parquet_files import (
    ParquetPart,
    class_names,
    is_bytes,
    is_text,
    list_parts,
    list_paths,
    missing_parts,
    one_sentence,
    open_parquet_file,
    read_images,
)

_IDENTITY_NAMES = ("celeb_id", "identity", "identity_id")
_SPLIT_COLUMNS = ("split", "partition")  # of numbers as in CelebA's partition list, or of the splits' names
_MAX_NUMBER, _MAX_PIXEL = 2**62, 10**6
_MAX_WORDS = 16  # different texts in a column of attributes, at most
_NULL = int(np.iinfo(np.int64).min)
LANDMARK_NAMES = tuple(
    f"{part}_{axis}" for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)


def open_parquet(
    path: Path, seed: int, forced: Kind | None, notes: Sequence[str] = (), beside: Sequence[IgnoredFile] = ()
) -> Catalogue:
    """Lists the images of one folder of parquet files, or of one such file.

    The split is that of a column of splits, or of the files' names (train-…, valid-… or validation-…, test-…) or
    folders (train/, split=train/). Where they name none, or all the same one, it is a hash of `seed` and the key.

    Args:
        path: the folder or file.
        seed: of the split, where nothing names it.
        forced: the value of --kind; None for auto.
        notes: lines for the terminal about other files that were found.
        beside: those files.

    Raises:
        UsageError: pyarrow is missing, a file is damaged, or there are no images.
    """
    parts = list_parts(path)
    image = _image_column(parts[0])
    paths, columns = _read_columns(parts, image)
    if not paths:
        raise UsageError(f"{path} holds no images: its parquet files have no rows")
    fields, found_notes = _annotations(parts, paths, columns, image, seed)
    below = [printable(str(each)) for each in (list_paths(path)[1] if path.is_dir() else ())]
    unused = [f"not used, because of those above them: {counted(len(below), 'parquet file')} in folders"]
    size = usual_size(decoded(read_images(parts, image, paths)))
    crop, crop_notes = default_crop("hq" if size and size[0] == size[1] else "parquet", size)
    return Catalogue(
        source=Source(kind="celeba parquet", fingerprint=_fingerprint(parts), images=len(paths)),
        reader=lambda rows, scratch: SpoolImages(str(scratch), list(rows)),
        refingerprint=lambda: _fingerprint(list_parts(path)),
        default_crop=crop,
        notes=(
            recognized("parquet", forced, path, len(paths)),
            *(*notes, *(unused if below else ()), *missing_parts(parts)),
            *(*found_notes, *empty_splits(fields["split"])),
        ),
        ignored=group_ignored([*beside, *(IgnoredFile(name, "a parquet file below others") for name in below)]),
        unpack=lambda scratch: write_spool(scratch, read_images(parts, image, paths)),
        source_size=size,
        crop_notes=crop_notes,
        **fields,
    )


def _fingerprint(parts: list[ParquetPart]) -> str:
    """SHA-256 over names, rows and footers, not over the files' location."""
    return fingerprint(f"{part.path.name}\0{part.split}\0{part.rows}\0{part.footer_sha256}" for part in parts)


def _image_column(part: ParquetPart) -> str:
    schema = part.schema
    structs = [each.name for each in schema if pa.types.is_struct(each.type) and _holds_images(each.type)]
    plain = [each.name for each in schema if is_bytes(each.type)]
    for found in (structs, plain):
        if "image" in found or len(found) == 1:
            return "image" if "image" in found else found[0]
    if structs or plain:
        several = ", ".join(structs or plain)
        raise UsageError(f"{part.path} has several columns of images ({several}): call the one to be used `image`")
    if "image" in schema.names and is_text(schema.field("image").type):
        reason = "its column `image` holds paths (text) and not the images: get the data set with its images embedded"
        raise UsageError(f"{part.path} holds no images: {reason}")
    columns = ", ".join(map(printable, schema.names))
    raise UsageError(
        f"{part.path} has no column `image` of {{bytes, path}} or of bytes; its columns are: {columns[:300]}"
    )


def _holds_images(struct: Any) -> bool:
    """Whether there is a field of bytes, and where there are paths, that they are text."""
    kinds = {each.name: each.type for each in struct}
    return "bytes" in kinds and is_bytes(kinds["bytes"]) and ("path" not in kinds or is_text(kinds["path"]))


def _read_columns(parts: list[ParquetPart], image: str) -> tuple[list[str], dict[str, Any]]:
    """The images' paths, and each column of numbers, booleans or text as a pyarrow array of all rows."""
    schema = parts[0].schema
    kind = schema.field(image).type
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    plain = {each.name: each.type for each in schema if each.name != image and _is_plain(each.type)}
    wanted = [*plain, *([f"{image}.path"] if has_path else [])]
    paths: list[str] = []
    tables = []
    for part in parts:
        own = part.schema
        if set(own.names) != set(schema.names) or pa.types.is_struct(own.field(image).type) != pa.types.is_struct(kind):
            raise UsageError(f"{part.path} has other columns than {parts[0].path}: point --source to files of one kind")
        with one_sentence(part.path):
            table = open_parquet_file(part.path).read(columns=wanted)
            if wanted and table.num_rows != part.rows:
                raise UsageError(f"{part.path} is damaged: it announces {part.rows:,} rows and has {table.num_rows:,}")
            tables.append(table.select(list(plain)).cast(pa.schema(plain.items())))
            found = [row["path"] or "" if row else "" for row in table[image].to_pylist()] if has_path else None
        paths += found or [""] * part.rows
    whole = pa.concat_tables(tables)
    return paths, {name: whole[name] for name in plain}


def _is_plain(kind: Any) -> bool:
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or is_text(kind)


def _annotations(
    parts: list[ParquetPart], paths: list[str], columns: dict[str, Any], image: str, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Recognizes the columns by name, type and values: the fields of the catalogue that they make, and notes."""
    rows, part = len(paths), parts[0]
    keys = _keys(paths)
    identity_name = next((name for name in _IDENTITY_NAMES if name in columns), "")
    landmark_names = LANDMARK_NAMES if set(LANDMARK_NAMES) <= set(columns) else ()
    split_name, split, notes = _split(parts, columns, keys, seed)
    names_of = class_names(part.schema)
    taken = {identity_name, split_name, *landmark_names}
    named = (n for n, names in names_of.items() if n in columns and n not in taken and len(names) > 2)
    label_name = "label" if "label" in columns else next(named, "")  # or the first with names of three classes and more
    label, label_names, label_notes = _labels(columns.get(label_name), names_of.get(label_name, []), rows)
    notes += label_notes
    used = {image, label_name, *taken}
    others = [name for name in columns if name not in {*used, *_IDENTITY_NAMES, *LANDMARK_NAMES}]
    codes = {name: code for name in others if (code := _attribute_codes(columns[name])) is not None}
    for name in codes:
        if len(names_of.get(name, [])) == 2:
            notes.append(f"attribute {name}: 0 is {names_of[name][0]}, 1 is {names_of[name][1]}")
    values = [attribute_values(code, f"column {printable(name)} of {part.path}") for name, code in codes.items()]
    if not codes:
        notes.append("no columns of attributes: continuing without attributes")
    if not identity_name:
        notes.append("no column of identities (celeb_id): continuing without identities")
    if not landmark_names:
        notes.append("no columns of landmarks (lefteye_x, …): continuing without landmarks")
    if ignored := [name for name in part.schema.names if name not in {*used, *codes}]:
        notes.append(f"columns that are not used: {', '.join(ignored)}")
    pixels = np.array([_integers(columns[name]) for name in landmark_names], np.int64).reshape(-1, rows).T
    table = SampleTable(
        keys=keys,
        sources=[printable(name) or f"row {row}" for row, name in enumerate(paths)],
        attributes=np.stack(values, axis=1) if values else np.empty((rows, 0), np.int8),
        factors=np.empty((rows, 0)),
        identity=_numbers(columns.get(identity_name), rows),
        label=label,
        landmarks=np.where(np.abs(pixels) <= _MAX_PIXEL, pixels, NO_LANDMARK).astype(np.int32),
    )
    names = {"attribute_names": tuple(codes), "label_names": label_names, "landmark_names": landmark_names}
    return {"table": table, "split": split, **names}, notes


def _labels(column: Any, names: list[str], rows: int) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Labels int64 (n,), their names, and notes."""
    if column is not None and is_text(column.type):
        texts = column.to_pylist()
        words = sorted({text for text in texts if text})
        number = {word: i for i, word in enumerate(words)}
        labels = np.array([number.get(text or "", -1) for text in texts], np.int64)
        return labels, tuple(printable(word) for word in words), []
    labels, notes = _numbers(column, rows), []
    if column is not None:
        values = column.drop_null().to_numpy()
        if np.mod(values[np.isfinite(values)], 1).any():
            labels, notes = _numbers(None, rows), ["the column of labels holds fractions: continuing without labels"]
    if names and labels.max(initial=-1) >= len(names):
        note = f"the file names {counted(len(names), 'label')} and has label {labels.max()}: names of labels not used"
        return labels, (), [note]
    return labels, tuple(printable(name) for name in names) if (labels >= 0).any() else (), notes


def _attribute_codes(column: Any) -> np.ndarray | None:
    """Codes for `attribute_values` of a column that holds nothing but yes, no and unknown; otherwise None."""
    text = is_text(column.type)
    encoded = (column.cast(pa.string()) if text else column).combine_chunks().dictionary_encode("encode")
    words = ["" if word is None else str(word) for word in encoded.dictionary.to_pylist()]
    if len(words) > _MAX_WORDS or (text and not any(words)):
        return None
    try:
        codes = np.array([attribute_code(word) for word in words], np.int8)
    except KeyError:
        return None
    return codes[encoded.indices.to_numpy()]


def _numbers(column: Any | None, rows: int) -> np.ndarray:
    """Whole numbers from 0 up, int64 (n,), -1 elsewhere."""
    numbers = np.full(rows, -1, np.int64) if column is None else _integers(column)
    return np.where((numbers >= 0) & (numbers <= _MAX_NUMBER), numbers, -1)


def _integers(column: Any) -> np.ndarray:
    """A column as int64 (n,), rounded, the smallest number where it is null."""
    if pa.types.is_floating(column.type):
        column = pc.round(column)  # pyright: ignore[reportAttributeAccessIssue]
    return column.cast(pa.int64(), safe=False).fill_null(_NULL).to_numpy()


def _keys(paths: list[str]) -> list[str]:
    """The stems of the images' names where each has one of its own; otherwise the rows' numbers, from 000001."""
    keys = [safe_key(stem) for name in paths if (stem := stem_of(name))]
    return keys if len(set(keys)) == len(paths) else [f"{row:06d}" for row in range(1, len(paths) + 1)]


def _split(
    parts: list[ParquetPart], columns: dict[str, Any], keys: Sequence[str], seed: int
) -> tuple[str, np.ndarray, list[str]]:
    """The column of splits ("" where there is none), an index into manifest.SPLITS for each image, and notes."""
    for name in (name for name in _SPLIT_COLUMNS if name in columns):
        split = np.array([_split_index(value) for value in columns[name].to_pylist()], np.int8)
        if split.min(initial=2) >= 0:
            return name, split, []
    named = {part.split for part in parts}
    split = np.repeat([part.split for part in parts], [part.rows for part in parts]).astype(np.int8)
    if named in ({0}, {1}, {2}):
        split[:] = -1
    unknown = np.flatnonzero(split < 0).tolist()
    for row in unknown:
        split[row] = seeded_split(seed, keys[row])
    which = f"the files name one split only ({SPLITS[named.pop()]})" if -1 not in named else "files name no split"
    note = f"{which}: splitting {counted(len(unknown), 'image')} 80/10/10 by a seeded hash of the key"
    return "", split, [note] if unknown else []


def _split_index(value: object) -> int:
    if isinstance(value, str):
        return split_named(value)
    return int(value) if isinstance(value, (int, float)) and value in range(len(SPLITS)) else -1
