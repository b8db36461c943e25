"""Which shards a run can use: each is compared with the manifest before the first step, and all ranks agree.

A damaged shard ends the run, or is left out whole with ``data.damaged=skip``. The order of samples is then made from
the remaining shards, so it is a different order: a run resumes only without the same shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from accelerate.utils import gather_object

from pipeline.config.schema import ConfigError, DataConfig
from pipeline.data.shard_reader import ShardSource
from preprocess.shards.reader import ShardError, ShardSet, damage_sentence
from preprocess.shards.verify import CANNOT_OPEN, damage_reason

HASHED_SPLITS = ("train", "valid")
"""Splits whose content is compared. Of the others only the sizes are."""


def usable_shards(source: ShardSource, data: DataConfig, rank: int, world_size: int) -> tuple[ShardSource, list[str]]:
    """Finds the damaged shards. Each rank looks at its part of them.

    Returns:
        The source without its damaged shards, the same on every rank, and a line for each shard that is left out.

    Raises:
        ShardError: A shard is damaged and ``data.damaged`` is "refuse"; the message names the first one.
        ConfigError: ``data.damaged=skip`` is not possible here.
    """
    if source.local is None:  # an address is checked while it is read
        if data.damaged == "skip":
            raise ConfigError(
                f"data.damaged=skip needs shards in a folder: those of {source.address} are checked as they are read, "
                "when the order of samples is fixed; copy them to this machine, or repair them where they lie"
            )
        return source, []
    damaged = _on_all_ranks(_examine(source.local, data.verify == "sha256", rank, world_size), world_size)
    if not damaged:
        return source, []
    if data.damaged == "refuse":
        file, reason = damaged[0]
        skip = "" if reason.startswith(CANNOT_OPEN) else "; data.damaged=skip trains without it"
        raise ShardError(damage_sentence(source.local.folder, file, reason) + skip)
    samples = {shard.file: shard.samples for split in source.manifest.splits.values() for shard in split.shards}
    local = source.local.without([file for file, _ in damaged])
    if not local.manifest.splits["train"].shards:
        raise ShardError(f"every train shard of {source.address} is damaged or missing; make the shards again")
    lines = [f"left out {file} ({samples[file]:,} images): {reason}" for file, reason in damaged]
    files = tuple(file for file, _ in damaged)
    return dataclasses.replace(source, manifest=local.manifest, local=local, left_out=files), lines


def _examine(shards: ShardSet, content: bool, rank: int, world_size: int) -> list[tuple[str, str]]:
    """Returns (file, what is wrong with it) for the damaged shards of this rank's part."""
    every = [(name, shard) for name, split in shards.manifest.splits.items() for shard in split.shards]
    examined = (
        (shard.file, damage_reason(shards.folder, shard, content and name in HASHED_SPLITS))
        for name, shard in every[rank::world_size]
    )
    return [(file, reason) for file, reason in examined if reason]


def _on_all_ranks(damaged: list[tuple[str, str]], world_size: int) -> list[tuple[str, str]]:
    """Returns what any rank found, in one order."""
    return sorted(damaged if world_size == 1 else gather_object(damaged))


def refuse_other_shards(before: Sequence[str], now: Sequence[str], checkpoint: str) -> str:
    """Compares the shards that were left out before and now.

    Returns:
        Why the run of ``checkpoint`` cannot be resumed with these shards; "" where they are the same.
    """
    missing, restored = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    if missing:
        return (
            f"{checkpoint} was trained with {', '.join(missing)}, which is damaged now: repair it, or train into "
            "another --out"
        )
    if restored:
        return (
            f"{checkpoint} was trained without {', '.join(restored)}, which is usable now: move it away again and set "
            "data.damaged=skip, or train into another --out"
        )
    return ""
