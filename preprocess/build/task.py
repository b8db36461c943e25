"""One shard as one task: what goes to a worker and what comes back. Small, picklable, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from preprocess.errors import UnreadableImage
from preprocess.shards.annotations import SampleTable
from preprocess.shards.manifest import LeftOut, Recipe


class PixelReader(Protocol):
    """Gives the pixels of a shard's images; picklable, and opened in the worker."""

    def __len__(self) -> int: ...

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        """One uint8 (h, w, C) per image, in order, valid until the next; or the reason why there is none."""
        ...


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard."""

    file: str
    folder: Path  # where the shard goes
    scratch: Path  # for the unfinished shard, on the same file system
    recipe: Recipe
    images: PixelReader
    table: SampleTable


@dataclass(frozen=True)
class ShardRecord:
    """What came out of a task; `samples` is 0, and there is no file, where every image was left out."""

    file: str
    samples: int
    bytes: int
    sha256: str
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """What is remembered of the shard while the set is unfinished; `parse` reads it."""
        return asdict(self) | {"left_out": [left.model_dump() for left in self.left_out]}

    @classmethod
    def parse(cls, content: bytes) -> ShardRecord:
        """Reads what was remembered.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        plain = json.loads(content)
        left_out = tuple(LeftOut.model_validate(left) for left in plain.pop("left_out"))
        return cls(**plain, left_out=left_out)
