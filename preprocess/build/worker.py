"""Makes one shard: the task that a worker gets, the work, and the record that it returns.

Making a shard again gives the same bytes, on any machine.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict

from preprocess.choices import Faces
from preprocess.errors import UnreadableImage
from preprocess.images.align import align, find_faces
from preprocess.images.codecs import encode
from preprocess.images.crop_resize import crop_box, resize_batch
from preprocess.shards.annotations import SampleTable, json_texts
from preprocess.shards.atomic import json_bytes, replace_file, write_file
from preprocess.shards.manifest import NO_FACE, LeftOut, ShardSpec
from preprocess.shards.tar import END_OF_ARCHIVE, MAX_KEY_BYTES, encoded_record, npy_record

if TYPE_CHECKING:
    from preprocess.containers.container import PixelReader

BATCH = 16  # images resized at a time: they fit into the cache; measured faster than 64 and 256
BATCH_BYTES = 32 << 20  # of the crops of a batch: fewer large photographs are held at a time
MAX_FACES = 99  # of one picture, the largest first
SUFFIX_BYTES = len(f"+{MAX_FACES}")
"""Bytes by which the key of a further face is longer than its picture's."""


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make one shard."""

    file: str  # name of the shard
    folder: Path  # where the finished shard goes
    scratch: Path  # where it is written first, on the same file system
    spec: ShardSpec  # what all shards of the set share
    images: PixelReader  # of this shard's pictures
    table: SampleTable  # of this shard's samples


class ShardRecord(BaseModel):
    """The result of a task: the shard's file, and the images that could not become samples.

    A shard of which every image was left out has 0 samples, and no file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    samples: int
    bytes: int
    sha256: str
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> bytes:
        """Returns the record as the content of a file."""
        return json_bytes(self.model_dump(mode="json"))


def make_shard(task: ShardTask) -> ShardRecord:
    """Makes one shard under a temporary name, fsyncs it, and renames it into place.

    The record is written before the rename, so that a shard in place always has one.

    Raises:
        OSError: the shard could not be written (disk full, no permission); its final name does not exist.
    """
    import torch  # noqa: PLC0415 - takes seconds to import, and only workers need it

    torch.set_num_threads(1)  # shards are made in parallel instead
    unfinished = task.scratch / f"{task.file}-{uuid.uuid4().hex}"  # a cluster may run one task twice at a time
    try:
        with unfinished.open("wb") as file:
            record = _write_shard(task, file)
        if record.samples:
            with replace_file(task.folder / task.file, unfinished):
                _write_record(task, record, unfinished)
        else:
            _write_record(task, record, unfinished)
        return record
    finally:
        unfinished.unlink(missing_ok=True)


def _write_record(task: ShardTask, record: ShardRecord, unfinished: Path) -> None:
    write_file(task.scratch / f"{task.file}.json", record.to_json(), unfinished.with_suffix(".record"))


def _write_shard(task: ShardTask, file: BinaryIO) -> ShardRecord:
    output = _ShardWriter(task.spec, file)
    texts = json_texts(task.table, task.spec.column_names)
    left_out = []
    for key, text, image in zip(task.table.keys, texts, task.images.pixels(), strict=True):
        try:
            if isinstance(image, UnreadableImage):
                raise image
            for sample in face_samples(key, text, image, task.spec.align):
                output.add(*sample)
        except UnreadableImage as reason:
            left_out.append(LeftOut(key=key, reason=str(reason)))
    output.flush()
    output.write(END_OF_ARCHIVE)
    return ShardRecord(
        file=task.file,
        samples=output.samples,
        bytes=file.tell(),
        sha256=output.digest.hexdigest(),
        left_out=tuple(left_out),
    )


def face_samples(
    key: str, text: bytes, image: np.ndarray, faces: Faces | None
) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yields the samples that one picture makes: key, JSON, and uint8 (h, w, C).

    Without alignment this is the picture itself. The largest face has the picture's key, a further one `KEY+2`.

    Raises:
        UnreadableImage: no face was found, or a further face's key would be too long.
    """
    if faces is None:
        yield key, text, image
        return
    found = find_faces(image)
    if not found:
        raise UnreadableImage(NO_FACE)
    yield key, text, align(image, found[0])
    for number, face in enumerate(found[1:MAX_FACES] if faces == "all" else (), 2):
        name = f"{key}+{number}"
        if len(name) > MAX_KEY_BYTES:
            raise UnreadableImage(f"its name is too long for the key of its face {number}")
        named = text.replace(f'"key":"{key}"'.encode("ascii"), f'"key":"{name}"'.encode("ascii"), 1)
        yield name, named, align(image, face)


class _ShardWriter:
    """Collects crops of equal size, resizes them together, and writes their records; counts and hashes them."""

    def __init__(self, spec: ShardSpec, file: BinaryIO) -> None:
        self.samples, self.digest = 0, hashlib.sha256()
        self._spec, self._file = spec, file
        self._crops = np.empty((0, 0, 0, spec.image_shape[2]), np.uint8)
        self._names: list[tuple[str, bytes]] = []  # key and JSON of each crop

    def add(self, key: str, text: bytes, image: np.ndarray) -> None:
        """Adds a sample: its key, its JSON, and a copy of the crop of its image; UnreadableImage if that is smaller."""
        top, left, height, width = crop_box(self._spec.crop, image.shape[0], image.shape[1])
        if self._crops.shape[1:3] != (height, width):
            self.flush()
            batch = max(1, min(BATCH, BATCH_BYTES // (height * width * image.shape[2])))
            self._crops = np.empty((batch, height, width, image.shape[2]), np.uint8)
        self._crops[len(self._names)] = image[top : top + height, left : left + width]
        self._names.append((key, text))
        if len(self._names) == len(self._crops):
            self.flush()

    def flush(self) -> None:
        """Resizes and writes the samples that were added since the last flush."""
        if self._names:
            height, width, _ = self._spec.image_shape
            images = resize_batch(self._crops[: len(self._names)], height, width, self._spec.resample)
            samples = zip(self._names, images, strict=True)
            self.write(b"".join(self._record(key, text, image) for (key, text), image in samples))
            self.samples += len(self._names)
            self._names.clear()

    def write(self, data: bytes) -> None:
        """Writes and hashes all of `data`."""
        self.digest.update(data)
        self._file.write(data)

    def _record(self, key: str, text: bytes, image: np.ndarray) -> bytes:
        if self._spec.layout:
            return npy_record(key, image, text, self._spec.layout)
        return encoded_record(key, self._spec.codec, encode(image, self._spec.codec), text)
