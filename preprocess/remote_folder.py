"""Shards that go to an fsspec URL (s3://, gs://, file://): made in a local stage, uploaded, read back; manifest last.

The remote place has the same contents as a local folder of shards: while a run is under way `.unfinished/` holds the
recipe and one record per uploaded shard, so that the same command goes on on any machine. A shard leaves the stage as
soon as it is uploaded. The stage's lock keeps two runs of one machine apart; an object store has no lock for two
machines, which would make the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from preprocess.errors import RunError, UsageError
from preprocess.manifest import MANIFEST_NAME, Manifest, ManifestError, Recipe
from preprocess.out_folder import (
    RECIPE_NAME,
    SCRATCH_NAME,
    SHARD_NAME,
    OutFolder,
    parse_record,
    records_of,
    refuse_if_other,
)
from preprocess.shard_task import ShardRecord, ShardTask

_CHUNK = 1 << 22
_VOLATILE = frozenset({"memory"})  # gone with the process


class RemoteFolder:
    """Where one run puts its shards, behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._fs, self._root = _file_system(self.name)
        self._renames = "file" in _protocols(self._fs)  # elsewhere an upload is visible only when it is whole
        stage = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._stage = OutFolder(Path(cache) / "mmd-vlae" / f"stage-{stage}")
        self.path, self.scratch = self._stage.path, self._stage.scratch

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the stage for this process, and removes it in the end: all that counts is uploaded by then.

        Raises:
            RunError: another run of this machine holds it.
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
            RunError: the place cannot be reached.
        """
        with self._explained("cannot be reached"):
            try:
                refuse_if_other(self._recipe_there(), recipe, self.name)
            except UsageError:
                if not overwrite:
                    raise
                self._clear()
            if self._renames:
                self._fs.makedirs(f"{self._root}/{SCRATCH_NAME}", exist_ok=True)
            self.scratch.mkdir(exist_ok=True)
            self._write(f"{SCRATCH_NAME}/{RECIPE_NAME}", recipe.model_dump_json().encode())

    def finished(self, tasks: Sequence[ShardTask], workers: int) -> dict[str, ShardRecord]:
        """The records of the shards that are there, whole and right; every byte of them is read."""
        with self._explained("cannot be read"):
            records = self._recorded(tasks)
            with ThreadPoolExecutor(workers) as pool:
                whole = pool.map(self._is_whole, records.values())
            return {name: record for (name, record), ok in zip(records.items(), whole, strict=True) if ok}

    def record(self, record: ShardRecord) -> None:
        """Uploads a finished shard, reads it back, remembers it, and takes it out of the stage.

        Raises:
            RunError: it could not be uploaded, or reads back different.
        """
        with self._explained(f"{record.file} could not be uploaded"):
            if record.samples:
                self._upload(self.path / record.file, record.file)
                if not self._is_whole(record):
                    raise RunError(
                        f"{self.name}/{record.file} reads back different from what was uploaded: "
                        "run the same command again"
                    )
                (self.path / record.file).unlink()
            plain = asdict(record) | {"left_out": [left.model_dump() for left in record.left_out]}
            self._write(f"{SCRATCH_NAME}/{record.file}.json", json.dumps(plain).encode())

    def finish(self, manifest: Manifest) -> None:
        """Puts the manifest in place, and removes what the run needed for itself.

        Raises:
            RunError: it could not be uploaded, or reads back different.
        """
        with self._explained(f"{MANIFEST_NAME} could not be uploaded"):
            content = (json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n").encode()
            self._write(MANIFEST_NAME, content)
            if self._read(MANIFEST_NAME) != content:
                raise RunError(f"{self.name}/{MANIFEST_NAME} reads back different: run the same command again")
            self._fs.rm(f"{self._root}/{SCRATCH_NAME}", recursive=True)

    def _recorded(self, tasks: Sequence[ShardTask]) -> dict[str, ShardRecord]:
        records: dict[str, ShardRecord] = {}
        manifest = self._read(MANIFEST_NAME)
        if manifest is not None:
            with contextlib.suppress(ManifestError):
                records |= records_of(Manifest.parse(manifest, f"{self.name}/{MANIFEST_NAME}"), tasks)
        there = set(self._names(SCRATCH_NAME))
        for task in tasks:
            if f"{task.file}.json" in there:
                content = self._read(f"{SCRATCH_NAME}/{task.file}.json")
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    records[task.file] = parse_record(content or b"")
        return records

    def _recipe_there(self) -> Recipe | None:
        """The recipe of the finished or unfinished set at the URL; None where there is neither."""
        recipe = self._read(f"{SCRATCH_NAME}/{RECIPE_NAME}")
        manifest = self._read(MANIFEST_NAME)
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
        if any(SHARD_NAME.fullmatch(name) for name in self._names("")):
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
            with self._fs.open(f"{self._root}/{record.file}", "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == record.sha256

    def _upload(self, path: Path, name: str) -> None:
        if self._renames:
            partial = f"{self._root}/{SCRATCH_NAME}/{Path(name).name}-partial"
            self._fs.put_file(str(path), partial)
            self._fs.mv(partial, f"{self._root}/{name}")
        else:
            self._fs.put_file(str(path), f"{self._root}/{name}")

    def _write(self, name: str, content: bytes) -> None:
        local = self.scratch / "upload"
        local.write_bytes(content)
        self._upload(local, name)
        local.unlink()

    def _read(self, name: str) -> bytes | None:
        self._fs.invalidate_cache()  # of listings: another run may have written since
        try:
            return self._fs.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def _names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            return [path.rsplit("/", 1)[-1] for path in self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)]
        except FileNotFoundError:
            return []

    def _clear(self) -> None:
        if self._read(MANIFEST_NAME) is not None:
            self._fs.rm(f"{self._root}/{MANIFEST_NAME}")  # first: what it promises is about to go
        for name in self._names(""):
            if SHARD_NAME.fullmatch(name):
                self._fs.rm(f"{self._root}/{name}")
        for name in self._names(SCRATCH_NAME):
            self._fs.rm(f"{self._root}/{SCRATCH_NAME}/{name}")

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

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """One sentence for whatever a file system's library raises: no network, no permission, no such bucket."""
        try:
            yield
        except (RunError, UsageError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunError(
                f"{self.name}: {what} ({reason}); uploaded shards are kept: run the same command again"
            ) from error


def is_url(out: str) -> bool:
    """Whether --out names a place behind a URL."""
    return "://" in out


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(f"--out {url} needs fsspec: pip install 'mmd-vlae[remote]'") from None
    try:
        fs, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--out {url} cannot be used: {' '.join(str(error).split())}") from None
    if _VOLATILE & _protocols(fs):
        raise UsageError(f"--out {url} would be gone when the command ends: give a folder, or s3://, gs:// or file://")
    return fs, root.rstrip("/")


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
