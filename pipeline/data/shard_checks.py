"""Which shards a run can use: each is compared with the manifest before the first step, and all ranks agree.

A damaged shard ends the run, or is left out whole with ``data.damaged=skip``. The order of samples is then made from
the remaining shards, so it is a different order: a run resumes only without the same shards.
"""

from __future__ import annotations

from dataclasses import replace

from accelerate.utils import gather_object

from pipeline.config.schema import ConfigError, DataConfig
from pipeline.data.shard_reader import ShardSource
from preprocess.shards.reader import ShardError, damage_sentence
from preprocess.shards.verify import CANNOT_OPEN, damage_reason

HASHED_SPLITS = ("train", "valid")
"""Splits whose content is compared. Of the others only the sizes are."""


def usable_shards(source: ShardSource, data: DataConfig, rank: int, world_size: int) -> tuple[ShardSource, list[str]]:
    """Finds the damaged shards. Each rank looks at its part of them.

    Returns:
        The source without its damaged shards, the same on every rank, and a line for each shard that is left out.

    Raises:
        ShardError: When a shard is damaged and ``data.damaged`` is "refuse", or every train shard is damaged.
        ConfigError: When ``data.damaged`` is "skip" and the shards are not in a folder.
    """
    content = data.verify == "sha256"
    if source.local is None:  # an address is checked while it is read
        if data.damaged == "skip":
            raise ConfigError(
                f"data.damaged=skip needs shards in a folder: those of {source.address} are checked as they are read, "
                "when the order of samples is fixed; copy them to this machine, or repair them where they lie"
            )
        return replace(source, hashed=content), []
    folder = source.local.folder
    every = [(shard, name) for name, split in source.manifest.splits.items() for shard in split.shards]
    reasons = (
        (shard, damage_reason(folder, shard, content and name in HASHED_SPLITS))
        for shard, name in every[rank::world_size]
    )
    found = [(shard.file, shard.samples, reason) for shard, reason in reasons if reason]
    damaged = _on_all_ranks(found, world_size)
    if not damaged:
        return source, []
    files = tuple(file for file, _, _ in damaged)
    if data.damaged == "refuse":
        reason = damaged[0][2]
        skip = "" if reason.startswith(CANNOT_OPEN) else "; data.damaged=skip trains without it"
        raise ShardError(damage_sentence(folder, files[0], reason) + skip)
    local = source.local.without(files)
    if not local.manifest.splits["train"].shards:
        raise ShardError(f"every train shard of {source.address} is damaged or missing; make the shards again")
    lines = [f"left out {file} ({samples:,} images): {reason}" for file, samples, reason in damaged]
    return replace(source, manifest=local.manifest, local=local, left_out=files), lines


def _on_all_ranks(damaged: list[tuple[str, int, str]], world_size: int) -> list[tuple[str, int, str]]:
    """Returns what any rank found, in one order."""
    return sorted(damaged if world_size == 1 else gather_object(damaged))
