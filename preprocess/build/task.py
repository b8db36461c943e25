"""One shard as one task: what is sent to a worker and what comes back. Small, picklable, without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preprocess.containers.container import PixelReader
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import LeftOut, ShardSpec


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make one shard.

    Attributes:
        file: name of the shard.
        folder: where the shard is written.
        scratch: folder for the unfinished shard, on the same file system.
        spec: what all shards of the set have in common.
        images: reads the pixels of this shard's images.
        table: what is known of this shard's samples.
    """

    file: str
    folder: Path
    scratch: Path
    spec: ShardSpec
    images: PixelReader
    table: SampleTable


@dataclass(frozen=True)
class ShardRecord:
    """The result of a task.

    Attributes:
        file: name of the shard.
        samples: samples in it; 0, without a file, if every image was left out.
        bytes: size of the file.
        sha256: of the file, as 64 hex digits.
        left_out: images that could not become samples.
    """

    file: str
    samples: int
    bytes: int
    sha256: str
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which are stored while the set is unfinished; `parse` reads them."""
        return asdict(self) | {"left_out": [left.model_dump() for left in self.left_out]}

    @classmethod
    def parse(cls, content: bytes) -> ShardRecord:
        """Reads a stored record.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        plain = json.loads(content)
        left_out = tuple(LeftOut.model_validate(left) for left in plain.pop("left_out"))
        return cls(**plain, left_out=left_out)
