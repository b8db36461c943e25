"""Re-reads a set of shards against its manifest and says what is wrong with each file."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from preprocess.manifest import MANIFEST_NAME, Manifest, Shard
from preprocess.out_folder import file_sha256


def verify(folder: Path, advance: Callable[[int], None]) -> list[str]:
    """Reads every byte of every shard.

    Args:
        folder: of the shards.
        advance: is called with the number of samples of each shard as it is done.

    Returns:
        One line per file that is damaged, missing or foreign; empty where all is well.

    Raises:
        ManifestError: there is no usable manifest to compare with.
    """
    manifest = Manifest.read(folder)
    problems = []
    known = {MANIFEST_NAME}
    for split in manifest.splits.values():
        for shard in split.shards:
            known.add(shard.file)
            problem = _examine(folder / shard.file, shard)
            if problem:
                problems.append(f"{shard.file}: {problem}")
            advance(shard.samples)
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in known)
    problems += [f"{name}: {_why_foreign(name)}" for name in foreign]
    return problems


def _examine(path: Path, shard: Shard) -> str:
    """What is wrong with one shard, or ""."""
    try:
        return _compare(path, shard)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except tarfile.TarError as error:
        return f"not a readable tar archive: {error}"


def _compare(path: Path, shard: Shard) -> str:
    size = path.stat().st_size
    if size != shard.bytes:
        return f"{size:,} bytes where the manifest says {shard.bytes:,}"
    if file_sha256(path) != shard.sha256:
        return "its content has changed (the SHA-256 differs from the manifest's)"
    counted = _count_samples(path)
    if counted != shard.samples:
        return f"{counted:,} samples where the manifest says {shard.samples:,}"
    return ""


def _count_samples(path: Path) -> int:
    with tarfile.open(path, "r:") as archive:
        return sum(member.name.endswith(".json") for member in archive)


def _why_foreign(name: str) -> str:
    if name == ".unfinished":
        return "a run was interrupted here; run its command again to finish it"
    if name == ".lock":
        return "a run is writing here, or was killed"
    return "not part of this set"
