"""Re-reads a set of shards against its manifest and says what is wrong with each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from preprocess.manifest import MANIFEST_NAME, Manifest
from preprocess.shard_check import why_damaged, why_no_shard


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
            problem = why_damaged(folder, shard) or why_no_shard(folder / shard.file, shard, manifest)
            if problem:
                problems.append(f"{shard.file}: {problem}")
            advance(shard.samples)
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in known)
    problems += [f"{name}: {_why_foreign(name)}" for name in foreign]
    return problems


def _why_foreign(name: str) -> str:
    if name == ".unfinished":
        return "a run was interrupted here; run its command again to finish it"
    if name == ".lock":
        return "a run is writing here, or was killed"
    return "not part of this set"
