"""Reading a finished set of shards: as memory-mapped arrays of pixels, and as arrays of annotations.

Letters in shapes: n samples, H W C image, A attributes, F factors, L landmarks.
"""

from __future__ import annotations

import json
import mmap
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.errors import ShardError
from preprocess.manifest import Layout, Manifest, Shard, Split

__all__ = ["Annotations", "ShardError", "ShardSet"]


def _no_landmarks() -> np.ndarray:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Annotations:
    """What is known of each sample, in shard order and then record order."""

    keys: list[str]
    attributes: np.ndarray  # int8 (n, A): 1, 0, or -1 where absent
    factors: np.ndarray  # float32 (n, F), NaN where absent
    identity: np.ndarray  # int64 (n,), -1 where absent
    label: np.ndarray  # int64 (n,), -1 where absent
    landmarks: np.ndarray = field(default_factory=_no_landmarks)  # float32 (n, L), source pixels, NaN where absent


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards and its manifest. Nothing is opened until it is asked for."""

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, folder: Path | str) -> ShardSet:
        """Reads the manifest of `folder`.

        Raises:
            ManifestError: there is no usable manifest.
        """
        manifest = Manifest.read(Path(folder))
        return cls(Path(folder), manifest, manifest.digest())

    def check_sizes(self) -> None:
        """Sees that every shard is there with its number of bytes: one stat each, no reading.

        Raises:
            ShardError: naming the first shard that is not.
        """
        for split in self.manifest.splits.values():
            for shard in split.shards:
                self._check_size(shard)

    def shard_paths(self, split: str) -> list[Path]:
        """The shard files of one split, in order."""
        return [self.folder / shard.file for shard in self._split(split).shards]

    def images(self, split: str) -> list[np.ndarray]:
        """One read-only view of uint8 (n, H, W, C) per shard, memory-mapped: nothing is read or copied yet.

        Raises:
            ShardError: a shard is missing or has another size, or the codec is not npy.
        """
        return [self._image_view(shard) for shard in self._split(split).shards]

    def annotations(self, split: str, limit: int | None = None) -> Annotations:
        """Parses the JSON of the split's first `limit` samples (all by default).

        Raises:
            ShardError: a shard is missing, has another size, or holds JSON that cannot be read.
        """
        total = self._split(split).samples
        count = total if limit is None else min(limit, total)
        attribute_index = {name: i for i, name in enumerate(self.manifest.attribute_names)}
        factor_index = {name: i for i, name in enumerate(self.manifest.factor_names)}
        landmark_index = {name: i for i, name in enumerate(self.manifest.landmark_names)}
        keys: list[str] = []
        attributes = np.full((count, len(attribute_index)), -1, np.int8)
        factors = np.full((count, len(factor_index)), np.nan, np.float32)
        landmarks = np.full((count, len(landmark_index)), np.nan, np.float32)
        identity = np.full(count, -1, np.int64)
        label = np.full(count, -1, np.int64)
        for row, sample in zip(range(count), self._samples(split), strict=False):
            keys.append(sample["key"])
            for name, value in sample.get("attributes", {}).items():
                attributes[row, attribute_index[name]] = value
            for name, value in sample.get("factors", {}).items():
                factors[row, factor_index[name]] = value
            for name, value in sample.get("landmarks", {}).items():
                landmarks[row, landmark_index[name]] = value
            identity[row] = sample.get("identity", -1)
            label[row] = sample.get("label", -1)
        return Annotations(keys, attributes, factors, identity, label, landmarks)

    def _split(self, split: str) -> Split:
        found = self.manifest.splits.get(split)  # type: ignore[call-overload]
        if found is None:
            known = ", ".join(self.manifest.splits)
            raise ShardError(f"{self.folder} has no split {split!r}; it has {known}")
        return found

    def _layout(self) -> Layout:
        if self.manifest.layout is None:
            raise ShardError(
                f"{self.folder} holds {self.manifest.codec} images, which cannot be mapped: "
                "stream them, or make the shards anew with --codec npy"
            )
        return self.manifest.layout

    def _check_size(self, shard: Shard) -> None:
        path = self.folder / shard.file
        remedy = f"see `preprocess verify {self.folder}`, and repeat the command that made it"
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ShardError(f"{path} cannot be opened ({error.strerror}): {remedy}") from None
        if size != shard.bytes:
            raise ShardError(f"{path} has {size:,} bytes and the manifest says {shard.bytes:,}: {remedy}")

    def _map(self, shard: Shard) -> mmap.mmap:
        self._check_size(shard)
        if shard.bytes < shard.samples * self._layout().record_bytes:
            raise ShardError(f"{self.folder / shard.file} is too small for its {shard.samples} samples")
        with (self.folder / shard.file).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _image_view(self, shard: Shard) -> np.ndarray:
        layout = self._layout()
        height, width, channels = self.manifest.image_shape
        return np.ndarray(
            (shard.samples, height, width, channels),
            np.uint8,
            buffer=self._map(shard),
            offset=layout.image_offset,
            strides=(layout.record_bytes, width * channels, channels, 1),
        )

    def _samples(self, split: str) -> Iterator[dict[str, Any]]:
        for shard in self._split(split).shards:
            texts = self._archived_texts(shard) if self.manifest.layout is None else self._mapped_texts(shard)
            for record, text in enumerate(texts):
                try:
                    yield json.loads(text)
                except ValueError:
                    raise ShardError(
                        f"{self.folder / shard.file}: the annotations of sample {record} are damaged: "
                        f"see `preprocess verify {self.folder}`"
                    ) from None

    def _mapped_texts(self, shard: Shard) -> Iterator[bytes]:
        layout = self._layout()
        with self._map(shard) as mapped:
            for start in range(layout.json_offset, shard.samples * layout.record_bytes, layout.record_bytes):
                yield mapped[start : start + layout.json_bytes]

    def _archived_texts(self, shard: Shard) -> Iterator[bytes]:
        self._check_size(shard)
        try:
            with tarfile.open(self.folder / shard.file, "r:") as archive:
                for member in archive:
                    if member.name.endswith(".json") and (file := archive.extractfile(member)) is not None:
                        yield file.read()
        except tarfile.TarError as error:
            raise ShardError(
                f"{self.folder / shard.file} cannot be read ({error}): see `preprocess verify {self.folder}`"
            ) from None
