"""From a catalogue to a finished set of shards: plan, make the missing shards, write the manifest."""

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

from preprocess.build.alignment import SUFFIX_BYTES, aligned_catalogue
from preprocess.build.executors import local_processes, run_tasks
from preprocess.build.output import Output
from preprocess.build.task import ShardRecord, ShardTask
from preprocess.errors import UserError
from preprocess.images.crop_resize import Crop, Resample
from preprocess.shards.annotations import JsonEncoder
from preprocess.shards.manifest import (
    MAX_MANIFEST_BYTES,
    SPLITS,
    Codec,
    Faces,
    LeftOut,
    Manifest,
    Shard,
    ShardSpec,
    Split,
)
from preprocess.shards.tar import layout_of
from preprocess.sources.index import Catalogue, seeded_rank

_LEFT_OUT_BYTES = 50  # of a manifest's entry of an image left out, beside its key and reason


@dataclass(frozen=True)
class BuildOptions:
    """The options of a build.

    Attributes:
        size: side of the finished images, in pixels.
        crop: the part of each image that is kept; None for the source's default.
        shard_size: samples per shard.
        workers: processes.
        seed: of the order inside each split.
        limit: number of images to use; None for all.
        overwrite: whether shards of another source or other options are replaced.
        codec: how images are stored.
        resample: filter of the resize.
        align: which faces of each picture are brought into CelebA's frame; None to take pictures as they are.
    """

    size: int
    crop: Crop | None
    shard_size: int
    workers: int
    seed: int
    limit: int | None
    overwrite: bool
    codec: Codec
    resample: Resample
    align: Faces | None = None


class Progress(Protocol):
    """Reports how a build proceeds; `preprocess.progress.ProgressReporter` is one."""

    def say(self, text: str) -> None:
        """Prints a line."""

    def start(self, images: int) -> None:
        """Begins to count up to `images`."""

    def advance(self, images: int, left_out: int, written: int) -> None:
        """Counts images that were processed, those of them that were left out, and bytes that were written."""


def build(
    catalogue: Catalogue,
    options: BuildOptions,
    output: Output,
    progress: Progress,
    make_executor: Callable[[int], Executor] = local_processes,
) -> Manifest:
    """Makes those shards of `catalogue` that `output` does not hold yet, then the manifest.

    Raises:
        UsageError: the output holds shards of another specification.
        UserError: another run holds the output, the disk is full, no image could be read, or the source changed.
    """
    if options.align is not None:
        catalogue = aligned_catalogue(catalogue)
    for note in catalogue.notes:
        progress.say(note)
    spec = make_spec(catalogue, options)
    with output.locked():
        output.acquire(spec, options.overwrite)
        tasks = plan(catalogue, spec, output)
        records = output.finished(tasks, options.workers)
        missing = [task for task in tasks if task.file not in records]
        _announce(tasks, missing, progress)
        _warn_of_space(missing, spec, output, progress)
        # an image that --limit did not choose was not left out
        left_out = catalogue.left_out if spec.limit is None else ()
        room = _ManifestRoom([*left_out, *(left for record in records.values() for left in record.left_out)])
        try:
            if missing and catalogue.unpack:
                progress.say("unpacking the images: this source can only be read from start to end")
                catalogue.unpack(output.scratch)
            with closing(run_tasks(missing, options.workers, make_executor)) as made:  # no worker outlives the lock
                for record in made:
                    output.commit_shard(record)
                    records[record.file] = record
                    progress.advance(record.samples + len(record.left_out), len(record.left_out), record.bytes)
                    room.take(record.left_out)
        except OSError as error:
            raise _write_failure(error, output.path, len(records), len(tasks)) from error
        if missing and catalogue.refingerprint() != spec.source.fingerprint:
            output.rollback()  # names and sizes may be unchanged: nothing else would show that the shards are mixed
            raise UserError("the source changed while it was read: run the same command again with --overwrite")
        manifest = _manifest(spec, catalogue, tasks, records, left_out)
        if not manifest.samples:
            output.rollback()
            reason = manifest.left_out[0].reason if manifest.left_out else "no images"
            raise UserError(f"no image could be used (the first: {reason}); nothing to train on in {output.name}")
        output.commit(manifest)
    return manifest


def make_spec(catalogue: Catalogue, options: BuildOptions) -> ShardSpec:
    """Returns everything that determines the shards' bytes, before an image is read."""
    shape = (options.size, options.size, catalogue.channels)
    encoder = JsonEncoder(catalogue.attribute_names, catalogue.factor_names, catalogue.landmark_names)
    longest = encoder.longest(catalogue.table) + (SUFFIX_BYTES if options.align == "all" else 0)
    return ShardSpec(
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
        source_size=catalogue.source_size,
        align=options.align,
    )


def plan(catalogue: Catalogue, spec: ShardSpec, output: Output) -> list[ShardTask]:
    """Cuts each split's seeded permutation into shards. The rank of a key does not depend on the other keys."""
    tasks = []
    keys = catalogue.table.keys
    counts = _counts_within_limit(np.bincount(catalogue.split, minlength=len(SPLITS)), spec.limit)
    for index, split in enumerate(SPLITS):
        rows = np.flatnonzero(catalogue.split == index).tolist()
        rows.sort(key=lambda row: (seeded_rank(spec.seed, "order", keys[row]), keys[row]))
        rows = rows[: counts[index]]
        for number, start in enumerate(range(0, len(rows), spec.shard_size)):
            chosen = rows[start : start + spec.shard_size]
            tasks.append(
                ShardTask(
                    file=f"{split}-{number:06d}.tar",
                    folder=output.path.resolve(),
                    scratch=output.scratch.resolve(),
                    spec=spec,
                    images=catalogue.reader(chosen, output.scratch.resolve()),
                    table=catalogue.table.take(chosen),
                )
            )
    return tasks


def _counts_within_limit(available: np.ndarray, limit: int | None) -> list[int]:
    """Returns the samples of each split: all, or the limit in proportion, at least one each, train first."""
    total = int(available.sum())
    if limit is None or limit >= total:
        return available.tolist()
    if limit < np.count_nonzero(available):
        given = np.flatnonzero(available)[:limit]
        return [int(index in given) for index in range(len(available))]
    counts = [min(int(n), max(1, round(limit * int(n) / total))) for n in available[1:]]
    return [max(0, min(int(available[0]), limit - sum(counts))), *counts]


def _announce(tasks: list[ShardTask], missing: list[ShardTask], progress: Progress) -> None:
    finished = len(tasks) - len(missing)
    if finished:
        progress.say(f"{finished:,} of {len(tasks):,} shards are already finished")
    progress.start(sum(len(task.table) for task in missing))


def _warn_of_space(missing: list[ShardTask], spec: ShardSpec, output: Output, progress: Progress) -> None:
    if spec.layout is None or str(output.path) != output.name:  # behind a URL, the disk holds few shards at a time
        return
    needed = spec.layout.record_bytes * sum(len(task.table) for task in missing)
    free = shutil.disk_usage(output.path).free
    if needed > free:
        progress.say(f"{output.name} has {free / 1e9:.2f} GB free and the shards need about {needed / 1e9:.2f} GB")


class _ManifestRoom:
    """Stops a build early whose manifest would list too many images to be readable again."""

    def __init__(self, left_out: Iterable[LeftOut]) -> None:
        self._bytes = 0
        self.take(left_out)

    def take(self, left_out: Iterable[LeftOut]) -> None:
        """Adds images to the list.

        Raises:
            UserError: the list is too long.
        """
        for left in left_out:
            self._bytes += len(json.dumps([left.key, left.reason])) + _LEFT_OUT_BYTES
            if self._bytes > MAX_MANIFEST_BYTES // 2:
                raise UserError(
                    f"more images cannot be used than a manifest can list (one of them: {left.key}: {left.reason}): "
                    "take them out of the source, or choose a --crop and --size that suit them; "
                    "finished shards are kept"
                )


def _write_failure(error: OSError, out: Path, finished: int, total: int) -> UserError:
    kept = f"{finished:,} of {total:,} shards are finished and kept"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return UserError(f"the disk of {out} is full: {kept}; free some space and run the same command again")
    return UserError(f"{error.filename or out}: {error.strerror or error}: {kept}; run the same command again")


def _manifest(
    spec: ShardSpec,
    catalogue: Catalogue,
    tasks: list[ShardTask],
    records: dict[str, ShardRecord],
    left_out: Iterable[LeftOut],
) -> Manifest:
    splits = {}
    for split in SPLITS:
        made = [records[task.file] for task in tasks if task.file.startswith(f"{split}-")]
        shards = tuple(Shard(file=r.file, samples=r.samples, bytes=r.bytes, sha256=r.sha256) for r in made if r.samples)
        splits[split] = Split(samples=sum(shard.samples for shard in shards), shards=shards)
    all_left_out = [*left_out, *(left for task in tasks for left in records[task.file].left_out)]
    all_left_out.sort(key=lambda left: left.key)
    return Manifest(**dict(spec), splits=splits, left_out=tuple(all_left_out), ignored=catalogue.ignored)
