"""Makes one shard: idempotent, and the same bytes whoever runs it.

This module imports torch; only workers import it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UnreadableImage
from preprocess.images.codecs import EncodedWriter
from preprocess.images.crop_resize import crop_box, resize_batch
from preprocess.shards.annotations import JsonEncoder
from preprocess.shards.atomic import replace_file, write_json
from preprocess.shards.manifest import LeftOut, Recipe
from preprocess.shards.tar_layout import END_OF_ARCHIVE, RecordWriter

BATCH = 16  # images resized at a time: fits the cache, and beats 64 and 256
BATCH_BYTES = 32 << 20  # of their crops: of large photographs fewer are held at a time


def make_shard(task: ShardTask) -> ShardRecord:
    """Makes one shard under a temporary name, flushes it to the disk and renames it into place.

    Its record is written first: a shard that is in place is never made again for want of one.

    Raises:
        OSError: it could not be written (disk full, no permission); nothing is left under the final name.
    """
    torch.set_num_threads(1)  # the shards are the parallelism
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
    output = _HashedFile(file)
    batches = _Batches(task.recipe, output)
    encoder = JsonEncoder(task.recipe.attribute_names, task.recipe.factor_names, task.recipe.landmark_names)
    left_out = []
    for key, text, image in zip(task.table.keys, encoder.encode(task.table), task.images.pixels(), strict=True):
        try:
            if isinstance(image, UnreadableImage):
                raise image
            batches.add(key, text, image)
        except UnreadableImage as reason:
            left_out.append(LeftOut(key=key, reason=str(reason)))
    batches.flush()
    output.write(END_OF_ARCHIVE)
    return ShardRecord(task.file, batches.samples, output.bytes, output.digest.hexdigest(), tuple(left_out))


class _Batches:
    """Collects equal-sized crops, resizes them together and writes their records."""

    def __init__(self, recipe: Recipe, output: _HashedFile) -> None:
        self.samples = 0
        self._recipe, self._output = recipe, output
        self._writer = (
            RecordWriter(recipe.layout, recipe.image_shape, BATCH) if recipe.layout else EncodedWriter(recipe.codec)
        )
        self._crops = np.empty((0, 0, 0, recipe.image_shape[2]), np.uint8)
        self._keys: list[str] = []
        self._texts: list[bytes] = []
        self._shape: tuple[int, ...] = ()
        self._box = (0, 0, 0, 0)

    def add(self, key: str, text: bytes, image: np.ndarray) -> None:
        """Takes a sample: its key, its JSON, and a copy of the crop of its image.

        Raises:
            UnreadableImage: the image is smaller than the crop.
        """
        if image.shape != self._shape:  # nearly all images of a source have one size
            self._box = crop_box(self._recipe.crop, image.shape[0], image.shape[1])
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
        """Resizes and writes what has been collected."""
        if not self._keys:
            return
        height, width, _ = self._recipe.image_shape
        images = resize_batch(self._crops[: len(self._keys)], height, width, self._recipe.resample)
        self._output.write(self._writer.records(self._keys, images, self._texts))
        self.samples += len(self._keys)
        self._keys.clear()
        self._texts.clear()


@dataclass
class _HashedFile:
    """Counts and hashes what goes into a file."""

    file: BinaryIO
    bytes: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        self.digest.update(rest)
        self.bytes += len(rest)
        while rest:  # a raw file may take less than it is given
            rest = rest[self.file.write(rest) :]
