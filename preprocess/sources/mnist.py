"""MNIST's four IDX files, gzipped or not: 28 x 28 gray digits and their labels."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from preprocess.containers.file_kinds import check_source, printable, type_of
from preprocess.containers.folder import scan
from preprocess.errors import UsageError, first_line
from preprocess.images.crop_resize import Crop
from preprocess.images.file_types import GZIP, IDX, UNKNOWN
from preprocess.shards.annotations import table_without_annotations
from preprocess.shards.manifest import Source
from preprocess.sources.index import Catalogue, seeded_rank

DATA_FOLDER = "data/mnist"
_PARTS = {"train": "train", "t10k": "test"}  # the start of the files' names, and of the keys
_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files: bytes in three dimensions, and in one
_MAX_BYTES = 600 << 20  # EMNIST, the largest set in this format, has 547 MB; a hostile gzip may unpack to any size
_VALID_SHARE = 10  # one training digit out of ten validates


def find_mnist(given: Path | None) -> Path | None:
    """Finds the folder to read: the given one, else $MNIST_ROOT, else data/mnist; None where none of them exists.

    Raises:
        UsageError: the given one is not a folder.
    """
    if given is None:
        folders = (os.environ.get("MNIST_ROOT"), DATA_FOLDER)
        return next((Path(path) for path in folders if path and Path(path).is_dir()), None)
    found = check_source(given, "--source ")
    if found.is_dir():
        return found
    kind = type_of(found)
    remedy = f"give the folder of the four IDX files ({found.parent})"
    if kind.family == "archive":
        remedy = "unpack it, and give the folder of the four IDX files"
    raise UsageError(f"--source {found} is {kind.name}: {remedy}")


def no_mnist() -> UsageError:
    """Returns the error that says where MNIST was looked for and which files are needed."""
    return UsageError(
        f"no MNIST found: looked at --source, $MNIST_ROOT and {DATA_FOLDER}; put train-images-idx3-ubyte.gz, "
        "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz into one of them, "
        "or add --yes to download them"
    )


def open_mnist(folder: Path, seed: int) -> Catalogue:
    """Lists the digits: t10k is the test split, a seeded tenth of train validates.

    Raises:
        UsageError: a file is missing, damaged, or has another number of labels than images.
    """
    files = [(_find(folder, f"{part}-images"), _find(folder, f"{part}-labels")) for part in _PARTS]
    labels = [_read(path, _LABELS) for _, path in files]
    for (images, path), own in zip(files, labels, strict=True):
        if (count := len(_read(images, _IMAGES))) != len(own):
            raise UsageError(f"{images} has {count:,} images and {path} {len(own):,} labels: download both again")
    keys = [f"{name}-{i:05d}" for name, own in zip(_PARTS.values(), labels, strict=True) for i in range(len(own))]
    trained = len(labels[0])
    split = np.full(len(keys), 2, np.int8)
    split[:trained] = 0
    by_rank = sorted(range(trained), key=lambda row: seeded_rank(seed, "split", keys[row]))
    split[by_rank[: trained // _VALID_SHARE]] = 1

    def reader(rows: Sequence[int], _: Path) -> IdxImages:
        is_test = rows[0] >= trained  # a shard lies within one split, and so within one file
        return IdxImages(files[is_test][0].resolve(), [row - trained * is_test for row in rows])

    return Catalogue(
        source=Source(kind="mnist", fingerprint=_fingerprint(files), images=len(keys)),
        table=replace(table_without_annotations(keys, keys), label=np.concatenate(labels).astype(np.int64)),
        split=split,
        reader=reader,
        refingerprint=lambda: _fingerprint(files, again=True),
        default_crop=Crop(kind="square"),
        notes=(f"mnist: {folder}, {trained:,} + {len(keys) - trained:,} digits",),
        channels=1,
    )


@dataclass(frozen=True)
class IdxImages:
    """Chosen images of one IDX file. A `PixelReader`."""

    path: Path
    rows: list[int]

    def pixels(self) -> Iterator[np.ndarray]:
        """Yields uint8 (28, 28, 1) for each image."""
        images = _read(self.path, _IMAGES)
        yield from (images[row][..., None] for row in self.rows)


def _find(folder: Path, start: str) -> Path:
    dimensions = "idx3" if start.endswith("images") else "idx1"
    names = [f"{start}{joint}{dimensions}-ubyte{end}" for joint in ("-", ".") for end in ("", ".gz")]
    for raw in (folder, folder / "MNIST" / "raw", folder / "raw"):  # torchvision's layout
        for name in names:
            for path in (raw / name, raw / name / name):  # some archives unpack into a folder of the file's name
                if path.is_file():
                    return path
    held = ", ".join(printable(name) for name in sorted(entry.name for entry in scan(folder))[:5])
    contents = f"it holds {held}" if held else "it is empty"
    raise UsageError(f"{folder} has no {names[0]} (or {names[1]}): {contents}; point --source to the IDX files' folder")


@lru_cache(maxsize=4)
def _read(path: Path, magic: int) -> np.ndarray:
    """The content of an IDX file: uint8 (n, 28, 28) or (n,); UsageError where it is damaged or another kind."""
    kind = type_of(path)
    try:
        with gzip.open(path) if kind is GZIP else path.open("rb") as file:  # browsers unpack what has this suffix
            start = 4 + 4 * (magic & 0xFF)
            header = file.read(start)
            if len(header) < start or int.from_bytes(header[:4], "big") != magic:
                what = f"{kind.name}, not" if kind not in (UNKNOWN, GZIP, IDX) else "not"
                raise UsageError(f"{path} is {what} an IDX file of the expected kind; download it again")
            shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
            content = _exactly(file, math.prod(shape))
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        raise UsageError(f"{path} is damaged ({first_line(error)}); download it again") from None
    if content is None:
        raise UsageError(f"{path} does not hold the {shape} bytes that its header says; download it again")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _exactly(file: BinaryIO | gzip.GzipFile, size: int) -> bytearray | None:
    """The rest of a file if it has this size, otherwise None. Memory grows with the file, not by the header's claim."""
    content = bytearray()
    while len(content) <= size <= _MAX_BYTES and (part := file.read(min(1 << 22, size + 1 - len(content)))):
        content += part
    return content if len(content) == size > 0 else None


def _fingerprint(files: list[tuple[Path, Path]], again: bool = False) -> str:
    """SHA-256 over the unpacked contents, so that gzipped and plain files are the same source."""
    if again:
        _read.cache_clear()
    digest = hashlib.sha256()
    for images, labels in files:
        digest.update(_read(images, _IMAGES).data)
        digest.update(_read(labels, _LABELS).data)
    return digest.hexdigest()
