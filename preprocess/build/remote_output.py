"""Shards that go to an fsspec URL (s3://, gs://, file://): made in a local stage, uploaded, read back; manifest last.

The remote place has the same contents as a local folder of shards: while a run is under way `.unfinished/` holds the
recipe and one record per uploaded shard, so that the same command goes on on any machine. A shard leaves the stage as
soon as it is uploaded. The stage's lock keeps two runs of one machine apart. Object stores have no lock for two
machines: those of one recipe put the same bytes there, and of two recipes the one that began first stops at its next
shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import ValidationError

from preprocess.build.output import (
    RECIPE_NAME,
    SCRATCH_NAME,
    SHARD_NAME,
    OutFolder,
    records_of,
    refuse_if_other,
)
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import ManifestError, UsageError, UserError
from preprocess.shards.manifest import MANIFEST_NAME, Manifest, Recipe
from preprocess.shards.storage import RemoteFiles, explained

_CHUNK = 1 << 22
_VOLATILE = frozenset({"memory"})  # gone with the process


class RemoteFolder:
    """Where one run puts its shards, behind a URL."""

    def __init__(self, url: str) -> None:
        self._files = RemoteFiles(url)
        self._fs, self.name = self._files.fs, self._files.name
        if _VOLATILE & self._files.protocols():
            raise UsageError(
                f"--out {self.name} would be gone when the command ends: give a folder, or s3://, gs:// or file://"
            )
        self._renames = "file" in self._files.protocols()  # elsewhere an upload is visible only when it is whole
        stage = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._stage = OutFolder(Path(cache) / "mmd-vlae" / f"stage-{stage}")
        self.path, self.scratch = self._stage.path, self._stage.scratch

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the stage for this process, and removes it in the end: all that counts is uploaded by then.

        Raises:
            UserError: another run of this machine holds it.
            UsageError: the stage cannot be made.
        """
        try:
            with self._stage.locked(), self._emptied():
                yield
        finally:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def claim(self, recipe: Recipe, overwrite: bool) -> None:
        """Makes the place this recipe's, before the first shard is made.

        Raises:
            UsageError: it is another recipe's, and not to be overwritten; the difference is named.
            UserError: the place cannot be reached.
        """
        with self._explained("cannot be reached"):
            try:
                refuse_if_other(self._recipe_there(), recipe, self.name)
            except UsageError:
                if not overwrite:
                    raise
                self._clear()
            self.scratch.mkdir(exist_ok=True)
            self._write(f"{SCRATCH_NAME}/{RECIPE_NAME}", recipe.model_dump_json().encode())
        self._recipe = recipe

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """The records of the shards that are there, whole and right; every byte of them is read."""
        with self._explained("cannot be read"):
            records = self._recorded(tasks)
            with ThreadPoolExecutor(workers) as pool:
                whole = pool.map(self._is_whole, records.values())
            return {name: record for (name, record), ok in zip(records.items(), whole, strict=True) if ok}

    def keep(self, record: ShardRecord) -> None:
        """Uploads a finished shard, reads it back, remembers it, and takes it out of the stage.

        Raises:
            UserError: it could not be uploaded, reads back different, or another run has taken the place over.
        """
        with self._explained(f"{record.file} could not be uploaded"):
            self._refuse_if_taken_over()
            if record.samples:
                self._upload(self.path / record.file, record.file)
                if not self._is_whole(record):
                    raise UserError(
                        f"{self.name}/{record.file} reads back different from what was uploaded: "
                        "run the same command again"
                    )
                (self.path / record.file).unlink()
            self._write(f"{SCRATCH_NAME}/{record.file}.json", json.dumps(record.as_json()).encode())

    def finish(self, manifest: Manifest) -> None:
        """Puts the manifest in place, and removes what the run needed for itself.

        Raises:
            UserError: it could not be uploaded, reads back different, or another run has taken the place over.
        """
        with self._explained(f"{MANIFEST_NAME} could not be uploaded"):
            self._refuse_if_taken_over()
            content = (json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n").encode()
            self._write(MANIFEST_NAME, content)
            if self._files.read(MANIFEST_NAME) != content:
                raise UserError(f"{self.name}/{MANIFEST_NAME} reads back different: run the same command again")
            self._remove_scratch()

    def abandon(self) -> None:
        """Forgets a run whose shards must not be used: the next may have other options, or makes all of them again."""
        with self._explained(f"{SCRATCH_NAME} could not be removed"):
            self._remove_manifest()
            self._remove_scratch()

    def _remove_manifest(self) -> None:
        if self._files.read(MANIFEST_NAME) is not None:
            self._fs.rm(self._files.path(MANIFEST_NAME))

    def _remove_scratch(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another run of this recipe has finished too
            self._fs.rm(self._files.path(SCRATCH_NAME), recursive=True)

    def _recorded(self, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
        records: dict[str, ShardRecord] = {}
        manifest = self._files.read(MANIFEST_NAME)
        if manifest is not None:
            with contextlib.suppress(ManifestError):
                records |= records_of(Manifest.parse(manifest, f"{self.name}/{MANIFEST_NAME}"), tasks)
        there = set(self._files.names(SCRATCH_NAME))
        for task in tasks:
            if f"{task.file}.json" in there:
                content = self._files.read(f"{SCRATCH_NAME}/{task.file}.json")
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    records[task.file] = ShardRecord.parse(content or b"")
        return records

    def _refuse_if_taken_over(self) -> None:
        there = self._recipe_there()
        differences = there.differences(self._recipe) if there else []
        if differences:
            raise UserError(
                f"another run has begun to write to {self.name} meanwhile, with {'; '.join(differences)}: "
                "its shards are left alone; choose another --out"
            )

    def _recipe_there(self) -> Recipe | None:
        """The recipe of the finished or unfinished set at the URL; None where there is neither."""
        recipe = self._files.read(f"{SCRATCH_NAME}/{RECIPE_NAME}")
        manifest = self._files.read(MANIFEST_NAME)
        try:
            if recipe is not None:
                return Recipe.model_validate_json(recipe)
            if manifest is not None:
                return Manifest.parse(manifest, f"{self.name}/{MANIFEST_NAME}")
        except (ValidationError, ManifestError):
            raise UsageError(
                f"{self.name} holds a set of another version of preprocess, or a damaged one: "
                "choose another --out, or add --overwrite"
            ) from None
        if any(SHARD_NAME.fullmatch(name) for name in self._files.names("")):
            raise UsageError(
                f"{self.name} holds shards without a manifest, made by something else: "
                "choose another --out, or add --overwrite"
            )
        return None

    def _is_whole(self, record: ShardRecord) -> bool:
        if not record.samples:
            return True
        digest = hashlib.sha256()
        try:
            with self._fs.open(self._files.path(record.file), "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == record.sha256

    def _upload(self, path: Path, name: str) -> None:
        if self._renames:
            # a name that another machine does not take; the folder goes when another run of this recipe finishes
            partial = self._files.path(f"{SCRATCH_NAME}/{Path(name).name}-partial-{uuid.uuid4().hex}")
            self._fs.makedirs(self._files.path(SCRATCH_NAME), exist_ok=True)
            self._fs.put_file(str(path), partial)
            self._fs.mv(partial, self._files.path(name))
        else:
            self._fs.put_file(str(path), self._files.path(name))

    def _write(self, name: str, content: bytes) -> None:
        local = self.scratch / "upload"
        local.write_bytes(content)
        self._upload(local, name)
        local.unlink()

    def _clear(self) -> None:
        self._remove_manifest()  # first: what it promises is about to go
        for name in self._files.names(""):
            if SHARD_NAME.fullmatch(name):
                self._fs.rm(self._files.path(name))
        for name in self._files.names(SCRATCH_NAME):
            self._fs.rm(self._files.path(f"{SCRATCH_NAME}/{name}"))

    @contextlib.contextmanager
    def _emptied(self) -> Iterator[None]:
        """An empty stage before and after."""
        self._empty_stage()
        try:
            yield
        finally:
            self._empty_stage()

    def _empty_stage(self) -> None:
        for path in list(self.path.iterdir()):
            if SHARD_NAME.fullmatch(path.name):
                path.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self.name, what, "uploaded shards are kept: run the same command again")
