"""Compares shards with their manifest: `preprocess verify`, the trainer before its first step, and the report."""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from preprocess.errors import first_line
from preprocess.shards.manifest import MANIFEST_NAME, Manifest, Shard
from preprocess.shards.storage import ShardFiles, reported
from preprocess.shards.tar import TarDamage, are_records, read_members

_CHUNK = 1 << 20
_RECORDS = 256  # compared at a time
_OTHER_CONTENT = "its content has changed (its SHA-256 is not the manifest's)"
_FOREIGN = {
    ".unfinished": "a run was interrupted here; run its command again to finish it",
    ".lock": "a run is writing here, or was killed",
}


def verify(files: ShardFiles, manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """Reads every byte of every shard.

    Args:
        files: the folder or URL of the shards.
        manifest: what the shards should be.
        advance: called with the number of samples of each shard after it was read.

    Returns:
        One line for each file that is damaged, missing or not part of the set; empty if there is none.

    Raises:
        UserError: the folder or URL can no longer be reached.
    """
    problems = []
    known = {MANIFEST_NAME}
    for split in manifest.splits.values():
        for shard in split.shards:
            known.add(shard.file)
            problem = _shard_problem(files, shard, manifest)
            if problem:
                problems.append(f"{shard.file}: {problem}")
            advance(shard.samples)
    with reported(files.name, "cannot be listed", "check that it can still be reached"):
        foreign = [name for name in files.names() if name not in known]
    return problems + [f"{name}: {_FOREIGN.get(name, 'not part of this set')}" for name in foreign]


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
        return _OTHER_CONTENT if content and file_sha256(path) != shard.sha256 else ""
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"


def format_error(path: Path, shard: Shard, manifest: Manifest) -> str:
    """Returns why a file is not a shard of this manifest although its SHA-256 may match, or "". Reads every member."""
    try:
        if manifest.layout is not None:
            is_shard = all(_are_records(path, shard, manifest))
            return "" if is_shard else "one of its records is not an image with its JSON"
        with path.open("rb") as file:
            samples = _count_samples(file, manifest)
    except TarDamage as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return _other_count(samples, shard)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shard_problem(files: ShardFiles, shard: Shard, manifest: Manifest) -> str:
    """Returns what is wrong with one shard, or ""."""
    if files.folder is not None:
        return damage_reason(files.folder, shard) or format_error(files.folder / shard.file, shard, manifest)
    try:
        with files.open(shard.file) as file:
            return _stream_problem(HashedReader(file), shard, manifest)
    except FileNotFoundError:
        return "it is missing"
    except Exception as error:  # the library behind a URL may raise anything
        return f"it cannot be read: {first_line(error)}"


def _stream_problem(file: HashedReader, shard: Shard, manifest: Manifest) -> str:
    """Counts the samples and hashes the bytes in one pass."""
    samples, damage = shard.samples, ""
    try:
        samples = _count_samples(file, manifest)
    except TarDamage as error:
        damage = str(error)
    while file.read(_CHUNK):
        pass  # the rest of a damaged archive
    if file.bytes != shard.bytes:
        return f"it has {file.bytes:,} bytes and should have {shard.bytes:,}"
    if file.digest.hexdigest() != shard.sha256:
        return _OTHER_CONTENT
    return damage or _other_count(samples, shard)


def _count_samples(file: IO[bytes] | HashedReader, manifest: Manifest) -> int:
    return sum(name.endswith(".json") for name, _ in read_members(file, manifest.image_suffix))


def _other_count(samples: int, shard: Shard) -> str:
    if samples == shard.samples:
        return ""
    return f"it holds {samples:,} samples and the manifest says {shard.samples:,}"


def _are_records(path: Path, shard: Shard, manifest: Manifest) -> Iterator[bool]:
    layout = manifest.layout
    assert layout is not None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for first in range(0, shard.samples, _RECORDS):
            count = min(_RECORDS, shard.samples - first)
            data = mapped[first * layout.record_bytes : (first + count) * layout.record_bytes]
            records = np.frombuffer(data, np.uint8).reshape(count, layout.record_bytes)
            yield are_records(records, layout, manifest.image_shape)


class HashedReader:
    """A file that counts and hashes the bytes that are read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        """Wraps a file that is open for reading."""
        self._file = file
        self.bytes = 0
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes."""
        data = self._file.read(size)
        self.bytes += len(data)
        self.digest.update(data)
        return data
