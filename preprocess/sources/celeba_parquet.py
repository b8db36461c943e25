"""CelebA as Hugging Face has it: parquet files of images and boolean columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocess.errors import UserError, UnreadableImage, UsageError
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import SPLITS, Source
from preprocess.sources.archives import decoded
from preprocess.sources.celeba_layouts import Kind, default_crop, recognized
from preprocess.sources.celeba_lists import stem_of
from preprocess.sources.index import Catalogue, printable, safe_key, seeded_split
from preprocess.sources.parquet_columns import ParquetTable, read_table
from preprocess.sources.parquet_files import ParquetPart, list_parts, open_parquet_file
from preprocess.sources.spool import SpoolImages, write_spool

_ROWS_AT_A_TIME = 128
_LOOKED_AT = 20  # images, to see which crop suits them


def open_parquet(path: Path, seed: int, forced: Kind | None) -> Catalogue:
    """Lists the images of one folder of parquet files, or of one such file.

    The split is what a column of splits says, or the files' names (train-…, valid-… or validation-…, test-…). Where
    they name none, or all the same one, it is a seeded hash of the key.

    Raises:
        UsageError: pyarrow is missing, a file is damaged, or there are no images.
    """
    parts = list_parts(path)
    table = read_table(parts)
    if not table.paths:
        raise UsageError(f"{path} holds no images")
    keys = _keys(table)
    split, split_note = _split(parts, table, keys, seed)
    size = _usual_size(decoded(_images(parts, table.image)))
    crop, crop_note = default_crop("hq" if size and size[0] == size[1] else "parquet", size)
    return Catalogue(
        source=Source(kind="celeba parquet", fingerprint=_fingerprint(parts), images=len(keys)),
        table=SampleTable(
            keys=keys,
            sources=[printable(name) or f"row {row}" for row, name in enumerate(table.paths)],
            attributes=table.attributes,
            factors=np.empty((len(keys), 0)),
            identity=table.identity,
            label=table.label,
            landmarks=table.landmarks,
        ),
        split=split,
        attribute_names=table.attribute_names,
        factor_names=(),
        landmark_names=table.landmark_names,
        label_names=(),
        channels=3,
        reader=lambda rows, scratch: SpoolImages(str(scratch), list(rows)),
        left_out=(),
        notes=(recognized("parquet", forced, path, len(keys)), *crop_note, *split_note, *_absent(table)),
        default_crop=crop,
        refingerprint=lambda: _fingerprint(list_parts(path)),
        unpack=lambda scratch: write_spool(scratch, _images(parts, table.image)),
    )


def _keys(table: ParquetTable) -> list[str]:
    """The stems of the images' names where each has one of its own; otherwise the rows' numbers, from 000001."""
    keys = [safe_key(stem) for name in table.paths if (stem := stem_of(name))]
    if len(set(keys)) == len(table.paths):
        return keys
    return [f"{row:06d}" for row in range(1, len(table.paths) + 1)]


def _split(parts: list[ParquetPart], table: ParquetTable, keys: list[str], seed: int) -> tuple[np.ndarray, list[str]]:
    if (table.split >= 0).all():
        return table.split, []
    named = {part.split for part in parts}
    split = np.repeat([part.split for part in parts], [part.rows for part in parts]).astype(np.int8)
    if named in ({0}, {1}, {2}):
        split[:] = -1
    unknown = np.flatnonzero(split < 0).tolist()
    for row in unknown:
        split[row] = seeded_split(seed, keys[row])
    if not unknown:
        return split, []
    which = f"the files name one split only ({SPLITS[named.pop()]})" if -1 not in named else "files name no split"
    return split, [f"{which}: splitting {len(unknown):,} images 80/10/10 by a seeded hash of the key"]


def _images(parts: list[ParquetPart], column: str) -> Iterator[bytes]:
    """The bytes of every image, in order; empty where there are none."""
    import pyarrow as pa  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

    for part in parts:
        try:
            file = open_parquet_file(part.path)
            in_struct = pa.types.is_struct(file.schema_arrow.field(column).type)
            wanted = f"{column}.bytes" if in_struct else column
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=[wanted]):
                images = batch.column(0).field("bytes") if in_struct else batch.column(0)
                for image in images:
                    yield image.as_py() or b""
        except UsageError:
            raise
        except Exception as error:  # pyarrow raises nearly anything on hostile files
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{part.path} is damaged ({reason}): download it again") from None


def _usual_size(images: Iterator[np.ndarray | UnreadableImage]) -> tuple[int, int] | None:
    """Height and width of the first image that can be read."""
    for _, image in zip(range(_LOOKED_AT), images, strict=False):
        if not isinstance(image, UnreadableImage):
            return image.shape[0], image.shape[1]
    return None


def _absent(table: ParquetTable) -> list[str]:
    notes = []
    if not table.attribute_names:
        notes.append("no columns of attributes: going on without attributes")
    if not table.identity_known:
        notes.append("no column of identities (celeb_id): going on without identities")
    if not table.landmark_names:
        notes.append("no columns of landmarks (lefteye_x, …): going on without landmarks")
    if table.ignored:
        notes.append(f"columns that mean nothing here are passed over: {', '.join(table.ignored)}")
    return notes


def _fingerprint(parts: list[ParquetPart]) -> str:
    """SHA-256 over names, rows and footers, not over where the files lie."""
    digest = hashlib.sha256()
    for part in parts:
        name = f"{part.path.name}\0{part.split}\0{part.rows}\0{part.footer_sha256}\n"
        digest.update(name.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
