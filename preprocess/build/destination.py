"""Where shards go: a folder, or a place behind a URL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from preprocess.build.output import OutFolder
from preprocess.build.remote_output import RemoteFolder
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.shards.manifest import Manifest, Recipe
from preprocess.shards.storage import is_url


class Destination(Protocol):
    """What a run needs of the place for its shards; `OutFolder` says what each method promises."""

    name: str  # as a person wrote it
    path: Path  # where workers put shards
    scratch: Path  # for what is unfinished, on the same file system

    def locked(self) -> AbstractContextManager[None]: ...

    def claim(self, recipe: Recipe, overwrite: bool) -> None: ...

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]: ...

    def keep(self, record: ShardRecord) -> None: ...

    def finish(self, manifest: Manifest) -> None: ...

    def abandon(self) -> None: ...


def open_destination(out: str) -> Destination:
    """The place that --out names; nothing is written yet.

    Raises:
        UsageError: the URL cannot be used, or what it needs is not installed.
    """
    return RemoteFolder(out) if is_url(out) else OutFolder(Path(out))
