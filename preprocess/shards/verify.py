"""Compares shards with their manifest: `preprocess verify`, the trainer before its first step, and the report."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from preprocess.choices import MANIFEST_NAME
from preprocess.errors import first_line
from preprocess.shards.manifest import Manifest, Shard
from preprocess.shards.storage import ShardFiles, reported
from preprocess.shards.tar import JSON_MEMBER, TarDamage, are_records, read_members

_BLOCK = 1 << 22  # bytes read at a time
CANNOT_OPEN = "it cannot be opened"
_OTHER_CONTENT = "its content has changed (its SHA-256 is not the manifest's)"
_FOREIGN = {
    ".unfinished": "a run was interrupted here; run its command again to finish it",
    ".lock": "a run is writing here, or was killed",
}


def verify(files: ShardFiles, manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """Reads every byte of every shard, and calls `advance` with the number of its samples.

    Returns:
        One line for each file that is damaged, missing or not part of the set; empty if there is none.

    Raises:
        UserError: the folder or URL can no longer be reached.
    """
    problems = {}
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    for shard in shards:
        problems[shard.file] = _shard_problem(files, shard, manifest)
        advance(shard.samples)
    with reported(files.name, "cannot be listed", "check that it can still be reached"):
        foreign = [name for name in files.names() if name not in {MANIFEST_NAME, *problems}]
    problems |= {name: _FOREIGN.get(name, "not part of this set") for name in foreign}
    return [f"{name}: {problem}" for name, problem in problems.items() if problem]


def damage_reason(folder: Path, shard: Shard, content: bool = True) -> str:
    """Returns what is wrong with a shard's file in a local folder, or "".

    Args:
        folder: the shards' folder.
        shard: what the manifest says about the file.
        content: whether to compare the SHA-256 too, which reads the whole file; otherwise only its size is compared.
    """
    path = folder / shard.file
    try:
        status = path.stat()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            return f"it is a link out of its folder, to {path.resolve()}; put the file itself there"
        if not stat.S_ISREG(status.st_mode):
            return "it is not a file"
        if status.st_size != shard.bytes:
            return f"it has {status.st_size:,} bytes and should have {shard.bytes:,}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if content else shard.sha256
        return "" if digest == shard.sha256 else _OTHER_CONTENT
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"{CANNOT_OPEN} ({error.strerror})"


def _shard_problem(files: ShardFiles, shard: Shard, manifest: Manifest) -> str:
    """Returns what is wrong with one shard, or "". Its bytes are hashed and its samples counted in one pass."""
    if files.folder is not None and (reason := damage_reason(files.folder, shard, content=False)):
        return reason
    damage = ""
    try:
        with files.open(shard.file) as opened:
            file = _HashedReader(opened)
            try:
                _check_samples(file, shard, manifest)
            except TarDamage as error:  # its SHA-256 may match nevertheless: the manifest may come from anyone
                damage = str(error)
            while file.read(_BLOCK):
                pass  # the rest of a damaged archive
    except FileNotFoundError:
        return "it is missing"
    except Exception as error:  # the library behind a URL may raise anything
        return f"it cannot be read: {first_line(error)}"
    if file.bytes != shard.bytes:
        return f"it has {file.bytes:,} bytes and should have {shard.bytes:,}"
    return damage if file.digest.hexdigest() == shard.sha256 else _OTHER_CONTENT


def _check_samples(file: _HashedReader, shard: Shard, manifest: Manifest) -> None:
    """Raises TarDamage where the file holds anything but the shard's number of samples."""
    layout = manifest.layout
    if layout is None:
        samples = sum(name.endswith(JSON_MEMBER) for name, _ in read_members(file, manifest.image_suffix))
        if samples != shard.samples:
            raise TarDamage(f"it holds {samples:,} samples and the manifest says {shard.samples:,}")
        return
    at_a_time = max(1, _BLOCK // layout.record_bytes)
    for first in range(0, shard.samples, at_a_time):
        data = file.read(min(at_a_time, shard.samples - first) * layout.record_bytes)
        records = np.frombuffer(data[: len(data) // layout.record_bytes * layout.record_bytes], np.uint8)
        if not are_records(records.reshape(-1, layout.record_bytes), layout, manifest.image_shape):
            raise TarDamage("one of its records is not an image with its JSON")


class _HashedReader:
    """A file that counts and hashes the bytes that are read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.bytes, self.digest = file, 0, hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.bytes += len(data)
        self.digest.update(data)
        return data
