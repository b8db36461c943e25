"""Shards that go to an fsspec URL (s3://, gs://, file://): made in a local folder, uploaded, read back.

The URL has the same contents as a local folder of shards, and the manifest is uploaded last. While a run is under way,
`.unfinished/` there holds the specification and one record for each uploaded shard, so that the same command continues
on any machine. A shard leaves the local folder as soon as it is uploaded.

The lock of the local folder keeps two runs of one machine apart. Object stores have no lock for two machines: two runs
of one specification upload the same bytes, and of two specifications the run that began first stops at its next shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from preprocess.build.output import SCRATCH_NAME, SHARD_NAME, SPEC_NAME, LocalOutput, Output
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UsageError, UserError
from preprocess.shards.manifest import MANIFEST_NAME, Manifest, ShardSpec
from preprocess.shards.storage import ShardFiles, is_url, reported

_CHUNK = 1 << 22
_VOLATILE = frozenset({"memory"})  # gone with the process


class RemoteOutput(Output):
    """A URL, to which shards are uploaded from a local folder, the stage."""

    def __init__(self, url: str) -> None:
        """Connects to the URL; nothing is written yet.

        Raises:
            UsageError: the URL cannot be used.
        """
        self.files = ShardFiles(url)
        self._fs, self.name = self.files.fs, self.files.name
        if _VOLATILE & self.files.protocols():
            raise UsageError(
                f"--out {self.name} would be gone when the command ends: give a folder, or s3://, gs:// or file://"
            )
        self._needs_rename = "file" in self.files.protocols()  # elsewhere an upload is visible only when complete
        stage = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._stage = LocalOutput(Path(cache) / "mmd-vlae" / f"stage-{stage}")
        self.path, self.scratch = self._stage.path, self._stage.scratch

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """See `Output.locked`. The stage is removed at the end: all finished shards are uploaded by then."""
        try:
            with self._stage.locked():
                self._empty_stage()
                try:
                    yield
                finally:
                    self._empty_stage()
        finally:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def acquire(self, spec: ShardSpec, overwrite: bool) -> None:
        """See `Output.acquire`."""
        with self._reported("cannot be reached"):
            self._clear_or_refuse(spec, overwrite)
            self.scratch.mkdir(exist_ok=True)
            self._write(f"{SCRATCH_NAME}/{SPEC_NAME}", spec.model_dump_json().encode())
        self._spec = spec

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """See `Output.finished`."""
        with self._reported("cannot be read"):
            return super().finished(tasks, workers)

    def commit_shard(self, record: ShardRecord) -> None:
        """Uploads a shard, reads it back, uploads its record, and removes it from the stage."""
        with self._reported(f"{record.file} could not be uploaded"):
            self._refuse_if_taken_over()
            if record.samples:
                self._upload(self.path / record.file, record.file)
                if not self._is_intact(record):
                    raise UserError(
                        f"{self.name}/{record.file} reads back different from the upload: run the same command again"
                    )
                (self.path / record.file).unlink()
            self._write(f"{SCRATCH_NAME}/{record.file}.json", json.dumps(record.as_json()).encode())

    def commit(self, manifest: Manifest) -> None:
        """See `Output.commit`."""
        with self._reported(f"{MANIFEST_NAME} could not be uploaded"):
            self._refuse_if_taken_over()
            content = (json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n").encode()
            self._write(MANIFEST_NAME, content)
            if self.files.read(MANIFEST_NAME) != content:
                raise UserError(f"{self.name}/{MANIFEST_NAME} reads back different: run the same command again")
            self._remove_remote_scratch()

    def rollback(self) -> None:
        """See `Output.rollback`."""
        with self._reported(f"{SCRATCH_NAME} could not be removed"):
            self.files.remove(MANIFEST_NAME)
            self._remove_remote_scratch()

    def _remove_remote_scratch(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another run of this specification has finished too
            self._fs.rm(self.files.path(SCRATCH_NAME), recursive=True)

    def _refuse_if_taken_over(self) -> None:
        differences = self._spec_differences(self._spec)
        if differences:
            raise UserError(
                f"another run has begun to write to {self.name} meanwhile, with {'; '.join(differences)}: "
                "its shards are left alone; choose another --out"
            )

    def _is_intact(self, record: ShardRecord) -> bool:
        if not record.samples:
            return True
        digest = hashlib.sha256()
        try:
            with self.files.open(record.file) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == record.sha256

    def _upload(self, path: Path, name: str) -> None:
        if not self._needs_rename:
            self._fs.put_file(str(path), self.files.path(name))
            return
        # the name is unique among machines; the folder is removed when another run of this specification finishes
        partial = self.files.path(f"{SCRATCH_NAME}/{Path(name).name}-partial-{uuid.uuid4().hex}")
        self._fs.makedirs(self.files.path(SCRATCH_NAME), exist_ok=True)
        self._fs.put_file(str(path), partial)
        self._fs.mv(partial, self.files.path(name))

    def _write(self, name: str, content: bytes) -> None:
        local = self.scratch / "upload"
        local.write_bytes(content)
        self._upload(local, name)
        local.unlink()

    def _empty_stage(self) -> None:
        for path in list(self.path.iterdir()):
            if SHARD_NAME.fullmatch(path.name):
                path.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _reported(self, failure: str) -> AbstractContextManager[None]:
        return reported(self.name, failure, "uploaded shards are kept: run the same command again")


def open_output(address: str) -> Output:
    """Returns the folder or URL that --out names; nothing is written yet.

    Raises:
        UsageError: the URL cannot be used, or the library for it is not installed.
    """
    return RemoteOutput(address) if is_url(address) else LocalOutput(Path(address))
