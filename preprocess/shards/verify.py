"""Re-reads a set of shards against its manifest and says what is wrong with each file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO

from preprocess.shards.manifest import MANIFEST_NAME, Manifest, Shard
from preprocess.shards.shard_check import damage_reason, format_error
from preprocess.shards.storage import LocalFiles, ShardFiles, explained, one_line
from preprocess.shards.tar import TarDamage, read_members
from preprocess.shards.tar_layout import IMAGE_MEMBER

_CHUNK = 1 << 20


def verify(files: ShardFiles, manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """Reads every byte of every shard, once.

    Args:
        files: of the shards.
        manifest: what they should be.
        advance: is called with the number of samples of each shard as it is done.

    Returns:
        One line per file that is damaged, missing or foreign; empty where all is well.

    Raises:
        UserError: the place can no longer be reached.
    """
    problems = []
    known = {MANIFEST_NAME}
    for split in manifest.splits.values():
        for shard in split.shards:
            known.add(shard.file)
            problem = _examine(files, shard, manifest)
            if problem:
                problems.append(f"{shard.file}: {problem}")
            advance(shard.samples)
    with explained(files.name, "cannot be listed", "see that it can still be reached"):
        foreign = [name for name in files.names() if name not in known]
    return problems + [f"{name}: {_why_foreign(name)}" for name in foreign]


def _examine(files: ShardFiles, shard: Shard, manifest: Manifest) -> str:
    """What is wrong with one shard, or ""."""
    if isinstance(files, LocalFiles):
        return damage_reason(files.path, shard) or format_error(files.path / shard.file, shard, manifest)
    try:
        with files.open(shard.file) as file:
            return _why_streamed_is_damaged(_Digested(file), shard, manifest)
    except FileNotFoundError:
        return "it is missing"
    except Exception as error:  # behind a URL, whatever its library raises
        return f"it cannot be read: {one_line(error)}"


def _why_streamed_is_damaged(file: _Digested, shard: Shard, manifest: Manifest) -> str:
    """Counts the samples and hashes the bytes in one pass; the hash is what tells first."""
    counted, broken = 0, ""
    try:
        for name, _ in read_members(file, IMAGE_MEMBER if manifest.codec == "npy" else f".{manifest.codec}"):
            counted += name.endswith(".json")
    except TarDamage as error:
        broken = str(error)
    while file.read(_CHUNK):
        pass  # what a damaged archive has not given up
    if file.bytes != shard.bytes:
        return f"it has {file.bytes:,} bytes and should have {shard.bytes:,}"
    if file.digest.hexdigest() != shard.sha256:
        return "its content has changed (its SHA-256 is not the manifest's)"
    if not broken and counted != shard.samples:
        return f"it holds {counted:,} samples and the manifest says {shard.samples:,}"
    return broken


class _Digested:
    """A file that counts and hashes what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.bytes = 0
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.bytes += len(data)
        self.digest.update(data)
        return data


def _why_foreign(name: str) -> str:
    if name == ".unfinished":
        return "a run was interrupted here; run its command again to finish it"
    if name == ".lock":
        return "a run is writing here, or was killed"
    return "not part of this set"
