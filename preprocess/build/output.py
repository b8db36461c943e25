"""The folder or URL that shards are made in: one run at a time, resumable, never a mixture of two specifications.

While a run is under way, `.unfinished/` holds the specification, temporary files, and one record for each finished
shard. It is removed when the manifest is in place. A shard counts as finished if its file has the SHA-256 of its
record.

Behind a URL (s3://, gs://, file://), workers make the shards in a local folder, the stage. Each is uploaded as soon as
it is finished, read back, and removed from the stage, so that the same command continues on any machine. The lock of
the stage keeps two runs of one machine apart. Object stores have no lock for two machines: two runs of one
specification upload the same bytes, and of two specifications the run that began first stops at its next shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from preprocess.build.worker import ShardRecord, ShardTask
from preprocess.choices import MANIFEST_NAME
from preprocess.errors import ManifestError, UsageError, UserError
from preprocess.shards.atomic import json_bytes, write_file
from preprocess.shards.manifest import Manifest, ShardSpec
from preprocess.shards.storage import ShardFiles, reported

SHARD_NAME = re.compile(r"(train|valid|test)-\d{6}\.tar")
SCRATCH_NAME, LOCK_NAME = ".unfinished", ".lock"
_SPEC = f"{SCRATCH_NAME}/spec.json"
_ANOTHER_OUT = "choose another --out, or add --overwrite"


class Output:
    """The place for one run's shards: workers write them to `path`, and unfinished files to `scratch`, both local."""

    def __init__(self, address: str) -> None:
        """Names a folder or connects to a URL; nothing is written yet.

        Raises:
            UsageError: the URL cannot be used, or the library for it is not installed.
            UserError: the service cannot be reached.
        """
        self.files = ShardFiles(address)
        self.name = self.files.name  # as the user wrote it
        self.remote = self.files.folder is None
        self.path = self.files.folder or _stage(self.name)
        self.scratch = self.path / SCRATCH_NAME
        protocol = self.files.fs.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        if self.remote and "memory" in self._protocols:
            raise UsageError(
                f"--out {self.name} would be gone when the command ends: give a folder, or s3://, gs:// or file://"
            )

    @contextlib.contextmanager
    def reserved(self, spec: ShardSpec, overwrite: bool) -> Iterator[None]:
        """Holds the place, created if needed, for one process and one specification.

        The kernel releases the lock when the process ends in any way.

        Raises:
            UserError: another run of this machine holds it, or it cannot be reached.
            UsageError: it cannot be created, or it holds shards of another specification and `overwrite` is not given;
                the message names the differences.
        """
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
            self._empty_stage()
            self._take(spec, overwrite)
            yield
        finally:
            self._empty_stage()  # all finished shards are uploaded by now
            (self.path / LOCK_NAME).unlink(missing_ok=True)  # while it is held: a waiting run then notices
            lock.release()
            if self.remote:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def _take(self, spec: ShardSpec, overwrite: bool) -> None:
        """Marks the place as that of one specification, before the first shard is made."""
        with self._reported("cannot be reached"):
            try:
                if differences := self._differences(spec):
                    raise UsageError(f"{self.name} holds shards of {'; '.join(differences)}: {_ANOTHER_OUT}")
            except UsageError:
                if not overwrite:
                    raise
                self.files.remove(MANIFEST_NAME)  # first, because it promises the shards that go next
                for name in self.files.names():
                    if SHARD_NAME.fullmatch(name):
                        self.files.remove(name)
                self._remove_scratch()
            # what a killed run left in a folder; the records of its finished shards stay
            (self.path / f".{MANIFEST_NAME}.tmp").unlink(missing_ok=True)
            self.scratch.mkdir(exist_ok=True)
            for path in list(self.scratch.iterdir()):
                if path.suffix != ".json":
                    path.unlink()
            self._write(_SPEC, json_bytes(spec.model_dump(mode="json")))
        self._spec = spec

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """Returns the records of the shards that are finished and undamaged; every byte of them is read."""
        records: dict[str, ShardRecord] = {}
        with self._reported("cannot be read"):
            with contextlib.suppress(ManifestError):
                records |= _records_of(Manifest.parse(self.files.read(MANIFEST_NAME), MANIFEST_NAME), tasks)
            unfinished = set(self.files.names(SCRATCH_NAME))
            for task in tasks:
                if f"{task.file}.json" in unfinished:
                    content = self.files.read(f"{SCRATCH_NAME}/{task.file}.json")
                    with contextlib.suppress(ValidationError):
                        records[task.file] = ShardRecord.model_validate_json(content or b"")
            with ThreadPoolExecutor(workers) as pool:  # hashing releases the GIL
                intact = pool.map(self._is_intact, records.values())
                return {name: record for (name, record), ok in zip(records.items(), intact, strict=True) if ok}

    def commit_shard(self, record: ShardRecord) -> None:
        """Uploads a shard that a worker made, and its record. In a local folder the worker has done all that is needed.

        Raises:
            UserError: it could not be uploaded, or another run has taken over the place.
        """
        if not self.remote:
            return
        with self._reported(f"{record.file} could not be uploaded"):
            self._refuse_if_taken_over()
            if record.samples:
                self._upload(self.path / record.file, record.file)
                if not self._is_intact(record):
                    raise UserError(
                        f"{self.name}/{record.file} reads back different from the upload: run the same command again"
                    )
                (self.path / record.file).unlink()
            self._write(f"{SCRATCH_NAME}/{record.file}.json", record.to_json())

    def commit(self, manifest: Manifest) -> None:
        """Writes the manifest, then removes what only the run needed.

        Raises:
            UserError: it could not be uploaded, or another run has taken over the place.
        """
        with self._reported(f"{MANIFEST_NAME} could not be uploaded"):
            self._refuse_if_taken_over()
            content = json_bytes(manifest.model_dump(mode="json"))
            self._write(MANIFEST_NAME, content)
            if self.files.read(MANIFEST_NAME) != content:
                raise UserError(f"{self.name}/{MANIFEST_NAME} reads back different: run the same command again")
            self._remove_scratch()

    def rollback(self) -> None:
        """Forgets a run whose shards must not be used; the next run may have other options."""
        with self._reported(f"{SCRATCH_NAME} could not be removed"):
            self.files.remove(MANIFEST_NAME)
            self._remove_scratch()

    def _is_intact(self, record: ShardRecord) -> bool:
        """Whether the shard's file has the record's SHA-256."""
        if not record.samples:
            return True
        try:
            with self.files.open(record.file) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256  # pyright: ignore[reportArgumentType]
        except OSError as error:
            if self.remote and not isinstance(error, FileNotFoundError):
                raise
            return False

    def _differences(self, spec: ShardSpec) -> list[str]:
        """Names what differs between `spec` and the finished or unfinished set in the place; empty where there is none.

        Raises UsageError if the place holds shards that this version cannot compare.
        """
        unfinished, manifest = self.files.read(_SPEC), self.files.read(MANIFEST_NAME)
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

    def _refuse_if_taken_over(self) -> None:
        if differences := self._differences(self._spec):
            raise UserError(
                f"another run has begun to write to {self.name} meanwhile, with {'; '.join(differences)}: "
                "its shards are left alone; choose another --out"
            )

    def _remove_scratch(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another run of this specification has finished too
            self.files.fs.rm(self.files.path(SCRATCH_NAME), recursive=True)

    def _empty_stage(self) -> None:
        if self.remote:
            for path in list(self.path.glob("*.tar")):
                path.unlink()
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _write(self, name: str, content: bytes) -> None:
        if not self.remote:
            write_file(self.path / name, content)
            return
        local = self.scratch / "upload"
        local.write_bytes(content)
        self._upload(local, name)
        local.unlink()

    def _upload(self, path: Path, name: str) -> None:
        target = self.files.path(name)
        if "file" not in self._protocols:  # an upload is visible only when it is complete
            self.files.fs.put_file(str(path), target)
            return
        # the name is unique among machines; the folder is removed when another run of this specification finishes
        partial = self.files.path(f"{SCRATCH_NAME}/{path.name}-partial-{uuid.uuid4().hex}")
        self.files.fs.makedirs(self.files.path(SCRATCH_NAME), exist_ok=True)
        self.files.fs.put_file(str(path), partial)
        self.files.fs.mv(partial, target)

    def _reported(self, failure: str) -> AbstractContextManager[None]:
        """Turns an error of the library behind a URL into a sentence."""
        if not self.remote:
            return contextlib.nullcontext()
        return reported(self.name, failure, "uploaded shards are kept: run the same command again")


def _stage(url: str) -> Path:
    """Returns the local folder in which the shards of a URL are made."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "mmd-vlae" / f"stage-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def _records_of(manifest: Manifest, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
    """Returns the manifest's shards as records; the keys of each task tell which images were left out of it."""
    reasons = {left.key: left for left in manifest.left_out}
    shards = {shard.file: shard for split in manifest.splits.values() for shard in split.shards}
    return {
        task.file: ShardRecord(
            **dict(shards[task.file]), left_out=tuple(reasons[key] for key in task.table.keys if key in reasons)
        )
        for task in tasks
        if task.file in shards
    }
