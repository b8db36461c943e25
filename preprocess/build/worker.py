"""Makes one shard. Making it again gives the same bytes, on any machine.

This module imports torch; only workers import it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from preprocess.build.alignment import face_samples
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UnreadableImage
from preprocess.images.codecs import encode
from preprocess.images.crop_resize import crop_box, resize_batch
from preprocess.shards.annotations import JsonEncoder
from preprocess.shards.atomic import replace_file, write_json
from preprocess.shards.manifest import LeftOut, ShardSpec
from preprocess.shards.tar import END_OF_ARCHIVE, RecordWriter, encoded_record

BATCH = 16  # images resized at a time: they fit into the cache; measured faster than 64 and 256
BATCH_BYTES = 32 << 20  # of the crops of a batch: fewer large photographs are held at a time


def make_shard(task: ShardTask) -> ShardRecord:
    """Makes one shard under a temporary name, fsyncs it, and renames it into place.

    The record is written before the rename, so that a shard in place always has one.

    Raises:
        OSError: the shard could not be written (disk full, no permission); its final name does not exist.
    """
    torch.set_num_threads(1)  # shards are made in parallel instead
    unfinished = task.scratch / f"{task.file}-{uuid.uuid4().hex}"  # a cluster may run one task twice at a time
    try:
        with unfinished.open("wb", buffering=0) as file:
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
    write_json(task.scratch / f"{task.file}.json", record.as_json(), unfinished.with_suffix(".record"))


def _write_shard(task: ShardTask, file: BinaryIO) -> ShardRecord:
    output = _HashedWriter(file)
    batches = _Batches(task.spec, output)
    encoder = JsonEncoder(task.spec.attribute_names, task.spec.factor_names, task.spec.landmark_names)
    left_out = []
    for key, text, image in zip(task.table.keys, encoder.encode(task.table), task.images.pixels(), strict=True):
        try:
            if isinstance(image, UnreadableImage):
                raise image
            for sample in face_samples(key, text, image, task.spec.align):
                batches.add(*sample)
        except UnreadableImage as reason:
            left_out.append(LeftOut(key=key, reason=str(reason)))
    batches.flush()
    output.write(END_OF_ARCHIVE)
    return ShardRecord(task.file, batches.samples, output.bytes, output.digest.hexdigest(), tuple(left_out))


class _Batches:
    """Collects crops of equal size, resizes them together and writes their records."""

    def __init__(self, spec: ShardSpec, output: _HashedWriter) -> None:
        self.samples = 0
        self._spec, self._output = spec, output
        self._records = RecordWriter(spec.layout, spec.image_shape, BATCH).records if spec.layout else self._encoded
        self._crops = np.empty((0, 0, 0, spec.image_shape[2]), np.uint8)
        self._keys: list[str] = []
        self._texts: list[bytes] = []
        self._shape: tuple[int, ...] = ()
        self._box = (0, 0, 0, 0)

    def add(self, key: str, text: bytes, image: np.ndarray) -> None:
        """Adds a sample: its key, its JSON, and a copy of the crop of its image.

        Raises:
            UnreadableImage: the image is smaller than the crop.
        """
        if image.shape != self._shape:  # nearly all images of a source have one size
            self._box = crop_box(self._spec.crop, image.shape[0], image.shape[1])
            self._shape = image.shape
        top, left, height, width = self._box
        if self._crops.shape[1:3] != (height, width):
            self.flush()
            batch = max(1, min(BATCH, BATCH_BYTES // (height * width * image.shape[2])))
            self._crops = np.empty((batch, height, width, image.shape[2]), np.uint8)
        self._crops[len(self._keys)] = image[top : top + height, left : left + width]
        self._keys.append(key)
        self._texts.append(text)
        if len(self._keys) == len(self._crops):
            self.flush()

    def flush(self) -> None:
        """Resizes and writes the samples that were added since the last flush."""
        if not self._keys:
            return
        height, width, _ = self._spec.image_shape
        images = resize_batch(self._crops[: len(self._keys)], height, width, self._spec.resample)
        self._output.write(self._records(self._keys, images, self._texts))
        self.samples += len(self._keys)
        self._keys.clear()
        self._texts.clear()

    def _encoded(self, keys: Sequence[str], images: np.ndarray, texts: Sequence[bytes]) -> bytes:
        codec = self._spec.codec
        samples = zip(keys, images, texts, strict=True)
        return b"".join(encoded_record(key, codec, encode(image, codec), text) for key, image, text in samples)


class _HashedWriter:
    """Counts and hashes the bytes that are written to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Writes all of `data`."""
        rest = memoryview(data)
        self.digest.update(rest)
        self.bytes += len(rest)
        while rest:  # a raw file may take less than it is given
            rest = rest[self._file.write(rest) :]
