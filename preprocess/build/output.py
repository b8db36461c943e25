"""The folder or URL that shards are made in: one run at a time, resumable, never a mixture of two specifications.

While a run is under way, `.unfinished/` holds the specification, temporary files, and one record for each finished
shard. It is removed when the manifest is in place. A shard counts as finished if its file has the SHA-256 of its
record.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import ManifestError, UsageError, UserError
from preprocess.shards.atomic import sync_folder, write_json
from preprocess.shards.manifest import MANIFEST_NAME, Manifest, ShardSpec
from preprocess.shards.storage import ShardFiles
from preprocess.shards.verify import file_sha256

SHARD_NAME = re.compile(r"(train|valid|test)-\d{6}\.tar")
SCRATCH_NAME, SPEC_NAME, LOCK_NAME = ".unfinished", "spec.json", ".lock"
_ANOTHER_OUT = "choose another --out, or add --overwrite"


class Output(ABC):
    """The place for one run's shards.

    Attributes:
        name: the place as the user wrote it.
        path: the local folder that workers write shards to.
        scratch: the local folder for unfinished files, on the same file system as `path`.
        files: the files of the place.
    """

    name: str
    path: Path
    scratch: Path
    files: ShardFiles

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Holds the place for this process, which creates it if needed.

        Raises:
            UserError: another run of this machine holds it.
            UsageError: it cannot be created.
        """

    @abstractmethod
    def acquire(self, spec: ShardSpec, overwrite: bool) -> None:
        """Reserves the place for one specification, before the first shard is made.

        Raises:
            UsageError: the place holds shards of another specification and `overwrite` is not given; the message names
                the differences.
            UserError: the place cannot be reached.
        """

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """Returns the records of the shards that are finished and undamaged; every byte of them is read."""
        records = self._recorded(tasks)
        with ThreadPoolExecutor(workers) as pool:  # hashing releases the GIL
            intact = pool.map(self._is_intact, records.values())
        return {name: record for (name, record), ok in zip(records.items(), intact, strict=True) if ok}

    @abstractmethod
    def commit_shard(self, record: ShardRecord) -> None:
        """Moves a shard that a worker made to its final place.

        Raises:
            UserError: it could not be uploaded, or another run has taken over the place.
        """

    @abstractmethod
    def commit(self, manifest: Manifest) -> None:
        """Writes the manifest, then removes what only the run needed.

        Raises:
            UserError: it could not be uploaded, or another run has taken over the place.
        """

    @abstractmethod
    def rollback(self) -> None:
        """Forgets a run whose shards must not be used; the next run may have other options."""

    @abstractmethod
    def _is_intact(self, record: ShardRecord) -> bool:
        """Whether the shard's file has the record's SHA-256."""

    def _recorded(self, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
        """Returns the records of the manifest, and of the unfinished run, without looking at the shards."""
        records: dict[str, ShardRecord] = {}
        manifest = self.files.read(MANIFEST_NAME)
        if manifest is not None:
            with contextlib.suppress(ManifestError):
                records |= _records_of(Manifest.parse(manifest, MANIFEST_NAME), tasks)
        unfinished = set(self.files.names(SCRATCH_NAME))
        for task in tasks:
            if f"{task.file}.json" in unfinished:
                content = self.files.read(f"{SCRATCH_NAME}/{task.file}.json")
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    records[task.file] = ShardRecord.parse(content or b"")
        return records

    def _spec_differences(self, spec: ShardSpec) -> list[str]:
        """Names what differs between `spec` and the finished or unfinished set in the place; empty where there is none.

        Raises:
            UsageError: the place holds shards that this version cannot compare.
        """
        unfinished, manifest = self.files.read(f"{SCRATCH_NAME}/{SPEC_NAME}"), self.files.read(MANIFEST_NAME)
        try:
            if unfinished is not None:
                return ShardSpec.model_validate_json(unfinished).differences(spec)
            if manifest is not None:
                return Manifest.parse(manifest, f"{self.name}/{MANIFEST_NAME}").differences(spec)
        except ValidationError:
            raise UsageError(
                f"{self.name} holds an unfinished run of another version of preprocess: {_ANOTHER_OUT}"
            ) from None
        except ManifestError as error:
            raise UsageError(f"{error}; {_ANOTHER_OUT}") from None
        if any(SHARD_NAME.fullmatch(name) for name in self.files.names()):
            raise UsageError(f"{self.name} holds shards without a manifest, made by another program: {_ANOTHER_OUT}")
        return []

    def _clear_or_refuse(self, spec: ShardSpec, overwrite: bool) -> None:
        """Removes a set of another specification if `overwrite` is given; raises UsageError otherwise."""
        try:
            differences = self._spec_differences(spec)
            if differences:
                raise UsageError(f"{self.name} holds shards of {'; '.join(differences)}: {_ANOTHER_OUT}")
        except UsageError:
            if not overwrite:
                raise
            self._clear()

    def _clear(self) -> None:
        self.files.remove(MANIFEST_NAME)  # first, because it promises the shards that go next
        for name in self.files.names():
            if SHARD_NAME.fullmatch(name):
                self.files.remove(name)
        for name in self.files.names(SCRATCH_NAME):
            self.files.remove(f"{SCRATCH_NAME}/{name}")


class LocalOutput(Output):
    """A folder, in which workers make the shards."""

    def __init__(self, path: Path) -> None:
        """Names the folder; nothing is created yet."""
        self.files = ShardFiles(str(path))
        self.name = str(path)
        self.path = path
        self.scratch = path / SCRATCH_NAME

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """See `Output.locked`. The kernel releases the lock however the process ends."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {self.path} cannot be created: {error.strerror}") from None
        lock = FileLock(self.path / LOCK_NAME, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another run is writing to {self.path}: wait for it, or choose another --out") from None
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written to: {error.strerror}") from None
        try:
            yield
        finally:
            (self.path / LOCK_NAME).unlink(missing_ok=True)  # while it is held: a waiting run then notices
            lock.release()

    def acquire(self, spec: ShardSpec, overwrite: bool) -> None:
        """See `Output.acquire`."""
        self._clear_or_refuse(spec, overwrite)
        self._remove_temporaries()
        self.scratch.mkdir(exist_ok=True)
        write_json(self.scratch / SPEC_NAME, spec.model_dump(mode="json"))

    def commit_shard(self, record: ShardRecord) -> None:
        """Does nothing: the worker has renamed the shard into place, and written its record."""

    def commit(self, manifest: Manifest) -> None:
        """See `Output.commit`."""
        manifest.write(self.path)
        shutil.rmtree(self.scratch)
        sync_folder(self.path)

    def rollback(self) -> None:
        """See `Output.rollback`."""
        self.files.remove(MANIFEST_NAME)
        shutil.rmtree(self.scratch)

    def _is_intact(self, record: ShardRecord) -> bool:
        if not record.samples:
            return True
        try:
            return file_sha256(self.path / record.file) == record.sha256
        except OSError:
            return False

    def _remove_temporaries(self) -> None:
        """Removes what a killed run left; the records of its finished shards stay."""
        leftovers = [self.path / f".{MANIFEST_NAME}.tmp"]
        if self.scratch.is_dir():
            leftovers += [path for path in self.scratch.iterdir() if path.suffix != ".json"]
        for path in leftovers:
            path.unlink(missing_ok=True)


def _records_of(manifest: Manifest, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
    """Returns the manifest's shards as records; the keys of each task tell which images were left out of it."""
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
