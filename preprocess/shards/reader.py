"""Reading a finished set of shards: as memory-mapped arrays of pixels, and as arrays of annotations.

Letters in shapes: n samples, H W C image, A attributes, F factors, L landmarks.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.errors import ShardError
from preprocess.shards.manifest import Manifest, Shard, Split
from preprocess.shards.tar import JSON_MEMBER, TarDamage, read_members
from preprocess.shards.verify import CANNOT_OPEN, damage_reason

__all__ = ["Annotations", "ShardError", "ShardSet"]

_GROUPS = {"attributes": (-1, np.int8), "factors": (np.nan, np.float32), "landmarks": (np.nan, np.float32)}
_NUMBERS = ("identity", "label")
_LARGEST = 3e38  # of a float32


def damage_sentence(folder: Path, file: str, reason: str) -> str:
    """Returns a sentence about a damaged or unreadable shard, with the remedy."""
    if reason.startswith(CANNOT_OPEN):
        return f"{folder / file}: {reason}; make it readable for this user (`chmod u+r`, or mount the disk again)"
    return (
        f"{folder / file} is damaged: {reason}; see `preprocess verify {folder}`, and repeat the command that made the "
        "shards: it makes missing and damaged ones again"
    )


@dataclass(frozen=True)
class Annotations:
    """The annotations of n samples, in shard order and then record order."""

    keys: list[str]
    attributes: np.ndarray  # int8 (n, A): 1, 0, or -1 where unknown
    factors: np.ndarray  # float32 (n, F), NaN where unknown
    identity: np.ndarray  # int64 (n,), -1 where unknown
    label: np.ndarray  # int64 (n,), -1 where unknown
    # float32 (n, L), in pixels of the source image, NaN where unknown
    landmarks: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))


@dataclass(frozen=True)
class ShardSet:
    """A folder of shards, its manifest and the manifest's digest. Shards are opened when they are needed."""

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
        """Checks that every shard exists with the right number of bytes, without reading it.

        Raises:
            ShardError: names the first shard for which this is not so.
        """
        for split in self.manifest.splits.values():
            for shard in split.shards:
                self._check(shard)

    def check_content(self, split: str, limit: int | None = None) -> None:
        """Compares the shards of the split's first `limit` samples (all by default) with the manifest's SHA-256.

        Raises:
            ShardError: names the first shard with other content.
        """
        position = 0
        for shard in self._split(split).shards:
            if limit is not None and position >= limit:
                return
            self._check(shard, content=True)
            position += shard.samples

    def without(self, damaged: Sequence[str]) -> ShardSet:
        """Returns this set without its damaged shards; the digest stays that of the complete set."""
        splits = {}
        for name, split in self.manifest.splits.items():
            kept = tuple(shard for shard in split.shards if shard.file not in damaged)
            splits[name] = Split(samples=sum(shard.samples for shard in kept), shards=kept)
        return replace(self, manifest=self.manifest.model_copy(update={"splits": splits}))

    def shard_paths(self, split: str) -> list[Path]:
        """Returns the paths of the shards of one split, in order."""
        return [self.folder / shard.file for shard in self._split(split).shards]

    def images(self, split: str) -> list[np.ndarray]:
        """Maps the shards into memory: one read-only view of uint8 (n, H, W, C) for each, not read or copied yet.

        Raises:
            ShardError: a shard is missing or has another size, or the codec is not npy.
        """
        layout = self.manifest.layout
        if layout is None:
            raise ShardError(
                f"{self.folder} holds {self.manifest.codec} images, which cannot be mapped: "
                "stream them, or make the shards again with --codec npy"
            )
        height, width, channels = self.manifest.image_shape
        strides = (layout.record_bytes, width * channels, channels, 1)
        return [
            np.ndarray(
                (shard.samples, height, width, channels), np.uint8, self._map(shard), layout.image_offset, strides
            )
            for shard in self._split(split).shards
        ]

    def annotations(self, split: str, limit: int | None = None) -> Annotations:
        """Parses the JSON of the split's first `limit` samples (all by default).

        Raises:
            ShardError: a shard is missing, has another size, or holds JSON that cannot be read.
        """
        count = self._split(split).samples
        count = count if limit is None else min(limit, count)
        groups = {
            group: np.full((count, len(self._columns[group])), unknown, kind)
            for group, (unknown, kind) in _GROUPS.items()
        }
        numbers = {name: np.full(count, -1, np.int64) for name in _NUMBERS}
        keys: list[str] = []
        for row, sample in zip(range(count), self._samples(split), strict=False):
            keys.append(sample["key"])
            for group, values in groups.items():
                for name, value in sample.get(group, {}).items():
                    values[row, self._columns[group][name]] = value
            for name, values in numbers.items():
                values[row] = sample.get(name, -1)
        return Annotations(keys, **groups, **numbers)

    @cached_property
    def _columns(self) -> dict[str, dict[str, int]]:
        """The column of each name, for each group of annotations."""
        names = zip(_GROUPS, self.manifest.column_names, strict=True)
        return {group: {name: column for column, name in enumerate(found)} for group, found in names}

    def _split(self, split: str) -> Split:
        known = {str(name): found for name, found in self.manifest.splits.items()}
        if split not in known:
            raise ShardError(f"{self.folder} has no split {split!r}; it has {', '.join(known)}")
        return known[split]

    def _damaged(self, shard: Shard, reason: str) -> ShardError:
        return ShardError(damage_sentence(self.folder, shard.file, reason))

    def _check(self, shard: Shard, content: bool = False) -> None:
        if reason := damage_reason(self.folder, shard, content):
            raise self._damaged(shard, reason)

    def _map(self, shard: Shard) -> mmap.mmap:
        self._check(shard)
        with (self.folder / shard.file).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _samples(self, split: str) -> Iterator[dict[str, Any]]:
        for shard in self._split(split).shards:
            count = 0
            for text in self._texts(shard):
                try:
                    yield self._parsed(text)
                except (ValueError, RecursionError) as error:
                    reason = f"the annotations of its sample {count} are damaged ({error})"
                    raise self._damaged(shard, reason) from None
                count += 1
            if count != shard.samples:
                raise self._damaged(shard, f"it holds {count:,} samples and the manifest says {shard.samples:,}")

    def _parsed(self, text: bytes) -> dict[str, Any]:
        """Parses the JSON of one sample. Raises ValueError if it holds a name that the manifest does not list."""
        plain = json.loads(text)
        if not isinstance(plain, dict) or not isinstance(plain.get("key"), str):
            raise ValueError("no key")
        for group, columns in self._columns.items():
            values = plain.get(group, {})
            if not isinstance(values, dict) or not values.keys() <= columns.keys():
                raise ValueError(f"{group} that the manifest does not name")
            largest = 1 if group == "attributes" else _LARGEST
            if not all(isinstance(value, int | float) and abs(value) <= largest for value in values.values()):
                raise ValueError(f"{group} that are not numbers")
        if not all(isinstance(plain.get(name, 0), int) and abs(plain.get(name, 0)) < 2**63 for name in _NUMBERS):
            raise ValueError("an identity or label that is not a whole number")
        return plain

    def _texts(self, shard: Shard) -> Iterator[bytes]:
        """Yields the JSON texts of a shard, unchecked."""
        if layout := self.manifest.layout:
            with self._map(shard) as mapped:
                for start in range(layout.json_offset, shard.samples * layout.record_bytes, layout.record_bytes):
                    yield mapped[start : start + layout.json_bytes]
            return
        self._check(shard)
        try:
            with (self.folder / shard.file).open("rb") as file:
                members = read_members(file, self.manifest.image_suffix)
                yield from (content for name, content in members if name.endswith(JSON_MEMBER))
        except TarDamage as error:
            raise self._damaged(shard, str(error)) from None
