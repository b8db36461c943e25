"""The folder that shards are made in: one run at a time, resumable, never another recipe's leftovers.

While a run is under way `.unfinished/` holds the recipe, temporaries and one record per finished shard; it goes
when the manifest is in place. A shard counts as finished when its file has the SHA-256 of its record.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import ManifestError, UsageError, UserError
from preprocess.shards.atomic import sync_folder, write_json
from preprocess.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    Recipe,
)
from preprocess.shards.shard_check import file_sha256

SHARD_NAME = re.compile(r"(train|valid|test)-\d{6}\.tar")
SCRATCH_NAME, RECIPE_NAME = ".unfinished", "recipe.json"
_LOCK = ".lock"


class OutFolder:
    """Where one run puts its shards."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        self.scratch = path / SCRATCH_NAME

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the kernel lets go of it however the process ends.

        Raises:
            UserError: another run holds it.
            UsageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {self.path} cannot be made: {error.strerror}") from None
        handle = _lock(self.path / _LOCK)
        try:
            yield
        finally:
            (self.path / _LOCK).unlink(missing_ok=True)  # while it is held: see _lock
            os.close(handle)

    def claim(self, recipe: Recipe, overwrite: bool) -> None:
        """Makes the folder this recipe's, before the first shard is made.

        Raises:
            UsageError: it is another recipe's, and not to be overwritten; the difference is named.
        """
        if overwrite:
            self._clear_if_other(recipe)
        else:
            refuse_if_other(self._recipe_there(), recipe, self.name)
        self._sweep()
        self.scratch.mkdir(exist_ok=True)
        write_json(self.scratch / RECIPE_NAME, recipe.model_dump(mode="json"))

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """The records of the shards that are there, whole and right; every byte of them is read."""
        records = self._recorded(tasks)
        with ThreadPoolExecutor(workers) as pool:  # hashing releases the GIL
            whole = pool.map(self._is_whole, records.values())
        return {name: record for (name, record), ok in zip(records.items(), whole, strict=True) if ok}

    def keep(self, record: ShardRecord) -> None:
        """Brings a shard that was made to where it is kept: here it was made there, with its record."""

    def finish(self, manifest: Manifest) -> None:
        """Puts the manifest in place, and removes what the run needed for itself."""
        manifest.write(self.path)
        shutil.rmtree(self.scratch)
        sync_folder(self.path)

    def abandon(self) -> None:
        """Forgets a run whose shards must not be used: the next may have other options, or makes all of them again."""
        (self.path / MANIFEST_NAME).unlink(missing_ok=True)
        shutil.rmtree(self.scratch)

    def _recorded(self, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
        records: dict[str, ShardRecord] = {}
        with contextlib.suppress(ManifestError):
            records |= records_of(Manifest.read(self.path), tasks)
        for task in tasks:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                records[task.file] = ShardRecord.parse((self.scratch / f"{task.file}.json").read_bytes())
        return records

    def _is_whole(self, record: ShardRecord) -> bool:
        if not record.samples:
            return True
        try:
            return file_sha256(self.path / record.file) == record.sha256
        except OSError:
            return False

    def _recipe_there(self) -> Recipe | None:
        """The recipe of the finished or unfinished set in this folder; None where there is neither."""
        with contextlib.suppress(FileNotFoundError):
            try:
                return Recipe.model_validate_json((self.scratch / RECIPE_NAME).read_bytes())
            except ValidationError:
                raise UsageError(
                    f"{self.path} holds an unfinished run of another version of preprocess: "
                    "choose another --out, or add --overwrite"
                ) from None
        if (self.path / MANIFEST_NAME).exists():
            try:
                return Manifest.read(self.path)
            except ManifestError as error:
                raise UsageError(f"{error}; choose another --out, or add --overwrite") from None
        if any(SHARD_NAME.fullmatch(path.name) for path in self.path.iterdir()):
            raise UsageError(
                f"{self.path} holds shards without a manifest, made by something else: "
                "choose another --out, or add --overwrite"
            )
        return None

    def _clear_if_other(self, recipe: Recipe) -> None:
        with contextlib.suppress(UsageError):
            there = self._recipe_there()
            if there is not None and not there.differences(recipe):
                return
        (self.path / MANIFEST_NAME).unlink(missing_ok=True)  # first: what it promises is about to go
        for path in list(self.path.iterdir()):
            if SHARD_NAME.fullmatch(path.name):
                path.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes temporaries of a run that was killed."""
        leftovers = [self.path / f".{MANIFEST_NAME}.tmp"]
        if self.scratch.is_dir():
            leftovers += [path for path in self.scratch.iterdir() if path.suffix != ".json"]
        for path in leftovers:
            path.unlink(missing_ok=True)


def refuse_if_other(there: Recipe | None, recipe: Recipe, where: str) -> None:
    """Raises UsageError, with the differences named, where the recipe there is another one."""
    differences = there.differences(recipe) if there else []
    if differences:
        raise UsageError(f"{where} holds shards of {'; '.join(differences)}: choose another --out, or add --overwrite")


def records_of(manifest: Manifest, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
    """The manifest's shards as records; what was left out is known by the keys of each task."""
    reasons = {left.key: left for left in manifest.left_out}
    shards = {shard.file: shard for split in manifest.splits.values() for shard in split.shards}
    return {
        task.file: ShardRecord(
            shard.file,
            shard.samples,
            shard.bytes,
            shard.sha256,
            tuple(reasons[key] for key in task.table.keys if key in reasons),
        )
        for task in tasks
        if (shard := shards.get(task.file)) is not None
    }


def _lock(path: Path) -> int:
    """Opens and locks a file; its handle.

    The holder removes the file before it lets go, so the lock counts only if the name still means this file.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be written to: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"another run is writing to {path.parent}: wait for it, or choose another --out") from None
        os.close(handle)
