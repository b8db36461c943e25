"""From a catalogue to a finished set of shards: plan, make what is missing, write the manifest."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from preprocess.build.destination import Destination
from preprocess.build.executors import local_processes, run_tasks
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UserError
from preprocess.shards.annotations import JsonEncoder
from preprocess.shards.manifest import (
    MAX_MANIFEST_BYTES,
    SPLITS,
    Codec,
    Crop,
    LeftOut,
    Manifest,
    Recipe,
    Resample,
    Shard,
    Split,
)
from preprocess.shards.tar_layout import layout_of
from preprocess.sources.index import Catalogue, seeded_rank

_ENTRY_FRAME = 50  # bytes of a manifest's entry of an image left out, beside its key and reason


@dataclass(frozen=True)
class Options:
    """What a person chose; sizes in pixels, shard_size in samples."""

    size: int
    crop: Crop | None  # None: the source's own
    shard_size: int
    workers: int
    seed: int
    limit: int | None
    overwrite: bool
    codec: Codec
    resample: Resample


class Listener(Protocol):
    """Hears how a run goes."""

    def say(self, text: str) -> None: ...

    def start(self, images: int) -> None: ...

    def advance(self, images: int, left_out: int, written: int) -> None: ...


def build(
    catalogue: Catalogue,
    options: Options,
    folder: Destination,
    listener: Listener,
    make_executor: Callable[[int], Executor] = local_processes,
) -> Manifest:
    """Makes the shards of `catalogue` in `out`, as far as they are not there already.

    Raises:
        UsageError: the folder is another recipe's.
        UserError: another run holds it, the disk is full, no image could be read, or the source changed.
    """
    for note in catalogue.notes:
        listener.say(note)
    recipe = make_recipe(catalogue, options)
    with folder.locked():
        folder.claim(recipe, options.overwrite)
        tasks = plan(catalogue, recipe, folder)
        records = folder.finished(tasks, options.workers)
        _announce(tasks, records, listener)
        missing = [task for task in tasks if task.file not in records]
        _warn_of_space(missing, recipe, folder, listener)
        missed = catalogue.left_out if recipe.limit is None else ()  # what a limit did not choose is not missed
        room = _room_of(missed) + sum(_room_of(record.left_out) for record in records.values())
        _refuse_endless_list(room, missed or tuple(left for record in records.values() for left in record.left_out))
        try:
            if missing and catalogue.unpack:
                listener.say("unpacking the images, which this source gives up in its own order only")
                catalogue.unpack(folder.scratch)
            with closing(run_tasks(missing, options.workers, make_executor)) as made:  # no worker outlives the lock
                for record in made:
                    folder.keep(record)
                    records[record.file] = record
                    listener.advance(record.samples + len(record.left_out), len(record.left_out), record.bytes)
                    room += _room_of(record.left_out)
                    _refuse_endless_list(room, record.left_out)
        except OSError as error:
            raise _write_failure(error, folder.path, len(records), len(tasks)) from error
        if missing and catalogue.refingerprint() != recipe.source.fingerprint:
            folder.abandon()  # names and sizes may be what they were: nothing else would tell that the shards are mixed
            raise UserError("the source changed while it was read: run the same command again with --overwrite")
        manifest = _manifest(recipe, tasks, records, missed)
        if not manifest.samples:
            folder.abandon()
            reason = manifest.left_out[0].reason if manifest.left_out else "no images"
            raise UserError(f"not one image could be used (the first: {reason}); nothing to train on in {folder.name}")
        folder.finish(manifest)
    return manifest


def make_recipe(catalogue: Catalogue, options: Options) -> Recipe:
    """Everything that determines the shards' bytes, before an image is read."""
    shape = (options.size, options.size, catalogue.channels)
    encoder = JsonEncoder(catalogue.attribute_names, catalogue.factor_names, catalogue.landmark_names)
    longest = encoder.longest(catalogue.table)
    return Recipe(
        source=catalogue.source,
        crop=options.crop or catalogue.default_crop,
        resample=options.resample,
        codec=options.codec,
        image_shape=shape,
        attribute_names=catalogue.attribute_names,
        factor_names=catalogue.factor_names,
        label_names=catalogue.label_names,
        landmark_names=catalogue.landmark_names,
        layout=layout_of(shape, longest) if options.codec == "npy" else None,
        seed=options.seed,
        shard_size=options.shard_size,
        limit=options.limit,
    )


def plan(catalogue: Catalogue, recipe: Recipe, folder: Destination) -> list[ShardTask]:
    """Cuts each split's seeded permutation into shards; the order of one key does not depend on the others."""
    tasks = []
    keys = catalogue.table.keys
    counts = _counts_within_limit(np.bincount(catalogue.split, minlength=len(SPLITS)), recipe.limit)
    for index, split in enumerate(SPLITS):
        rows = np.flatnonzero(catalogue.split == index).tolist()
        rows.sort(key=lambda row: (seeded_rank(recipe.seed, "order", keys[row]), keys[row]))
        rows = rows[: counts[index]]
        for number, start in enumerate(range(0, len(rows), recipe.shard_size)):
            chosen = rows[start : start + recipe.shard_size]
            tasks.append(
                ShardTask(
                    file=f"{split}-{number:06d}.tar",
                    folder=folder.path.resolve(),
                    scratch=folder.scratch.resolve(),
                    recipe=recipe,
                    images=catalogue.reader(chosen, folder.scratch.resolve()),
                    table=catalogue.table.take(chosen),
                )
            )
    return tasks


def _counts_within_limit(available: np.ndarray, limit: int | None) -> list[int]:
    """How many samples of each split: all, or the limit shared out in proportion, at least one each, train first."""
    total = int(available.sum())
    if limit is None or limit >= total:
        return available.tolist()
    if limit < np.count_nonzero(available):
        given = np.flatnonzero(available)[:limit]
        return [int(index in given) for index in range(len(available))]
    counts = [min(int(n), max(1, round(limit * int(n) / total))) for n in available[1:]]
    return [max(0, min(int(available[0]), limit - sum(counts))), *counts]


def _announce(tasks: list[ShardTask], records: dict[str, ShardRecord], listener: Listener) -> None:
    if records:
        listener.say(f"{len(records):,} of {len(tasks):,} shards are there already and whole")
    listener.start(sum(len(task.table) for task in tasks if task.file not in records))


def _warn_of_space(missing: list[ShardTask], recipe: Recipe, folder: Destination, listener: Listener) -> None:
    if recipe.layout is None or str(folder.path) != folder.name:  # a stage holds a few shards at a time
        return
    needed = recipe.layout.record_bytes * sum(len(task.table) for task in missing)
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        listener.say(f"{folder.name} has {_gigabytes(free)} free and the shards need about {_gigabytes(needed)}")


def _room_of(left_out: Iterable[LeftOut]) -> int:
    """Bytes that these entries take in a manifest, at most."""
    return sum(len(json.dumps([left.key, left.reason])) + _ENTRY_FRAME for left in left_out)


def _refuse_endless_list(room: int, left_out: tuple[LeftOut, ...]) -> None:
    """Stops while little is lost: a manifest with a longer list could not be read again."""
    if room > MAX_MANIFEST_BYTES // 2:
        first = left_out[-1]
        raise UserError(
            f"more images cannot be used than a manifest can list (one of them: {first.key}: {first.reason}): "
            "take them out of the source, or choose a --crop and --size that suit them; finished shards are kept"
        )


def _write_failure(error: OSError, out: Path, finished: int, total: int) -> UserError:
    kept = f"{finished:,} of {total:,} shards are finished and kept"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return UserError(f"the disk of {out} is full: {kept}; make room and run the same command again")
    return UserError(f"{error.filename or out}: {error.strerror or error}: {kept}; run the same command again")


def _manifest(
    recipe: Recipe, tasks: list[ShardTask], records: dict[str, ShardRecord], left_out: Iterable[LeftOut]
) -> Manifest:
    splits = {}
    for split in SPLITS:
        made = [records[task.file] for task in tasks if task.file.startswith(f"{split}-")]
        shards = tuple(Shard(file=r.file, samples=r.samples, bytes=r.bytes, sha256=r.sha256) for r in made if r.samples)
        splits[split] = Split(samples=sum(shard.samples for shard in shards), shards=shards)
    everything = [*left_out, *(left for task in tasks for left in records[task.file].left_out)]
    everything.sort(key=lambda left: left.key)
    return Manifest(**dict(recipe), splits=splits, left_out=tuple(everything))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
