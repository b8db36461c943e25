"""Which shards a run can use: each is compared with the manifest before the first step, and all ranks agree.

A damaged shard ends the run, or is left out whole with ``data.damaged=skip``. The plan is then made from the shards
that remain, so it is another one: a run resumes only without the same shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from accelerate.utils import gather_object

from pipeline.config.schema import ConfigError, DataConfig
from pipeline.data.shard_source import ShardSource
from preprocess.shards.reader import ShardError, ShardSet, damage_sentence
from preprocess.shards.shard_check import damage_reason

READ = ("train", "valid")
"""Splits whose content is compared; of others only the sizes are."""


def usable(source: ShardSource, data: DataConfig, rank: int, world_size: int) -> tuple[ShardSource, list[str]]:
    """The source without its damaged shards, the same on every rank, and a line for each of them.

    Raises ShardError naming the first damaged shard unless they are to be left out, ConfigError where that cannot be.
    """
    if source.local is None:  # an address is checked while it is read
        if data.damaged == "skip":
            raise ConfigError(
                f"data.damaged=skip needs shards in a folder: those of {source.address} are checked as they are read, "
                "when the plan of the run is made; copy them to this machine, or mend them where they lie"
            )
        return source, []
    found = _on_all_ranks(_examine(source.local, data.verify == "sha256", rank, world_size), world_size)
    if not found:
        return source, []
    if data.damaged == "refuse":
        file, reason = found[0]
        raise ShardError(damage_sentence(source.local.folder, file, reason) + "; data.damaged=skip trains without it")
    samples = {shard.file: shard.samples for split in source.manifest.splits.values() for shard in split.shards}
    local = source.local.without([file for file, _ in found])
    lines = [f"left out {file} ({samples[file]:,} images): {reason}" for file, reason in found]
    files = tuple(file for file, _ in found)
    return dataclasses.replace(source, manifest=local.manifest, local=local, left_out=files), lines


def _examine(shards: ShardSet, content: bool, rank: int, world_size: int) -> list[tuple[str, str]]:
    """(file, what is wrong with it) of this rank's part of the shards."""
    every = [(split, shard) for split, found in shards.manifest.splits.items() for shard in found.shards]
    mine = every[rank::world_size]
    examined = ((s.file, damage_reason(shards.folder, s, content and split in READ)) for split, s in mine)
    return [(file, reason) for file, reason in examined if reason]


def _on_all_ranks(found: list[tuple[str, str]], world_size: int) -> list[tuple[str, str]]:
    """What any rank found, in one order."""
    return sorted(found if world_size == 1 else gather_object(found))


def refuse_other_shards(before: Sequence[str], now: Sequence[str], where: str) -> str:
    """Why a run cannot go on with other shards than it was trained on; "" where they are the same."""
    gone, back = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    if gone:
        return f"{where} was trained with {', '.join(gone)}, which is damaged now: mend it, or train into another --out"
    if back:
        return (
            f"{where} was trained without {', '.join(back)}, which is there now: move it away again and set "
            "data.damaged=skip, or train into another --out"
        )
    return ""
