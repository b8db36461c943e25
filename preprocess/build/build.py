"""From a catalogue to a finished set of shards: plan, make the missing shards, write the manifest."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.build import worker
from preprocess.build.executors import Opener, run_tasks
from preprocess.build.options import BuildOptions, cores
from preprocess.build.output import Output
from preprocess.build.worker import SUFFIX_BYTES, ShardRecord, ShardTask
from preprocess.choices import MANIFEST_NAME
from preprocess.errors import UserError
from preprocess.images.crop_resize import CELEBA_SIZE, Crop, choose_crop, has_celeba_frame, scaled_crop
from preprocess.progress import ProgressReporter
from preprocess.shards.annotations import longest_json
from preprocess.shards.manifest import (
    MAX_MANIFEST_BYTES,
    NO_FACE,
    SPLITS,
    LeftOut,
    Manifest,
    Shard,
    ShardSpec,
    Split,
    SplitName,
)
from preprocess.shards.tar import layout_of
from preprocess.sources.index import Catalogue, seeded_rank

_LEFT_OUT_BYTES = 50  # of a manifest's entry of an image left out, beside its key and reason


def build(
    catalogue: Catalogue, options: BuildOptions, output: Output, progress: ProgressReporter, open_executor: Opener
) -> Manifest:
    """Makes those shards of `catalogue` that `output` does not hold yet, then the manifest.

    Raises:
        UsageError: the output holds shards of another specification.
        UserError: another run holds the output, the disk is full, no image could be read, or the source changed.
    """
    workers = options.workers or cores()
    if options.align:
        catalogue = _aligned(catalogue)
    spec = make_spec(catalogue, options)
    for note in (*catalogue.notes, *_crop_notes(catalogue, options, spec.crop)):
        progress.say(note)
    with output.reserved(spec, options.overwrite):
        tasks = plan(catalogue, spec, output)
        records = output.finished(tasks, workers)
        missing = [task for task in tasks if task.file not in records]
        if records:
            progress.say(f"{len(records):,} of {len(tasks):,} shards are already finished")
        _warn_of_space(missing, spec, output, progress)
        # an image that --limit did not choose was not left out
        left_out = list(catalogue.left_out if spec.limit is None else ())
        left_out += (left for record in records.values() for left in record.left_out)
        _refuse_long_list(left_out)
        progress.start(sum(len(task.table) for task in missing))
        try:
            if missing and catalogue.unpack:
                progress.say("unpacking the images: this source can only be read from start to end")
                catalogue.unpack(output.scratch)
            made = run_tasks(worker.make_shard, missing, workers, open_executor, "finished shards")
            with closing(made):  # no worker outlives the lock
                for record in made:
                    output.commit_shard(record)
                    records[record.file] = record
                    progress.advance(record.samples + len(record.left_out), len(record.left_out), record.bytes)
                    left_out += record.left_out
                    if record.left_out:
                        _refuse_long_list(left_out)
        except OSError as error:
            raise _write_failure(error, output.path, len(records), len(tasks)) from error
        if missing and catalogue.refingerprint() != spec.source.fingerprint:
            output.rollback()  # names and sizes may be unchanged: nothing else would show that the shards are mixed
            raise UserError("the source changed while it was read: run the same command again with --overwrite")
        left_out.sort(key=lambda left: left.key)
        splits = _splits([records[task.file] for task in tasks])
        manifest = Manifest(**dict(spec), splits=splits, left_out=tuple(left_out), ignored=catalogue.ignored)
        if not manifest.samples:
            output.rollback()
            reason = left_out[0].reason if left_out else "no images"
            raise UserError(f"no image could be used (the first: {reason}); nothing to train on in {output.name}")
        output.commit(manifest)
    return manifest


def refuse_too_many_bad(manifest: Manifest, max_bad: float, out: str) -> None:
    """Fails a finished run that left out too many images; its shards are kept, and the next command can accept it.

    Args:
        manifest: of the finished run.
        max_bad: largest share of images left out, in [0, 1]; photographs without a face do not count.
        out: the place of the shards, for the message.

    Raises:
        UserError: When a larger share was left out.
    """
    bad = sum(left.reason != NO_FACE for left in manifest.left_out)  # photographs without a face are not damaged
    total = manifest.samples + bad
    if bad > max_bad * total:
        accepting = math.ceil(bad / total * 10_000) / 10_000
        raise UserError(
            f"{bad:,} of {total:,} images ({bad / total:.2%}) {'was' if bad == 1 else 'were'} left out, more than "
            f"--max-bad {max_bad:g} allows; the shards in {out} are finished: look at the reasons in "
            f"{MANIFEST_NAME} there, and to accept them repeat the command with --max-bad {accepting:g}, "
            "which makes no shard again"
        )


def _aligned(catalogue: Catalogue) -> Catalogue:
    """The catalogue of the aligned pictures, all of CelebA's size; landmarks refer to pixels of the others."""
    dropped = ("landmarks are not kept: they refer to the pictures before --align",) if catalogue.landmark_names else ()
    return replace(
        catalogue,
        table=replace(catalogue.table, landmarks=np.empty((len(catalogue.table), 0), np.int32)),
        landmark_names=(),
        default_crop=Crop(kind="center", size=148),
        crop_notes=(),
        source_size=CELEBA_SIZE,
        notes=(*catalogue.notes, *dropped),
    )


def _crop_notes(catalogue: Catalogue, options: BuildOptions, crop: Crop) -> Sequence[str]:
    """Says how the crop was chosen, and what it means for images that have CelebA's frame in another size."""
    if not (options.crop or options.preset):
        return catalogue.crop_notes
    size = catalogue.source_size
    if size is None or size == CELEBA_SIZE or not has_celeba_frame(size) or crop.kind in {"square", "none"}:
        return []
    if options.preset:
        return [f"--preset {options.preset} is {crop} for images of {size[1]} x {size[0]}"]
    same = scaled_crop(crop, size, CELEBA_SIZE)
    return [f"--crop counts pixels of the images, {size[1]} x {size[0]}: of CelebA's 178 x 218 it would be {same}"]


def make_spec(catalogue: Catalogue, options: BuildOptions) -> ShardSpec:
    """Returns everything that determines the shards' bytes, before an image is read."""
    shape = (options.size, options.size, catalogue.channels)
    names = (catalogue.attribute_names, catalogue.factor_names, catalogue.landmark_names)
    longest = longest_json(catalogue.table, names) + (SUFFIX_BYTES if options.aligned_faces == "all" else 0)
    return ShardSpec(
        source=catalogue.source,
        crop=choose_crop(options.crop, options.preset, catalogue.source_size) or catalogue.default_crop,
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
        align=options.aligned_faces,
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


def _warn_of_space(missing: list[ShardTask], spec: ShardSpec, output: Output, progress: ProgressReporter) -> None:
    if spec.layout is None or output.remote:  # behind a URL, the disk holds few shards at a time
        return
    needed = spec.layout.record_bytes * sum(len(task.table) for task in missing)
    free = shutil.disk_usage(output.path).free
    if needed > free:
        progress.say(f"{output.name} has {free / 1e9:.2f} GB free and the shards need about {needed / 1e9:.2f} GB")


def _refuse_long_list(left_out: list[LeftOut]) -> None:
    """Stops a build early whose manifest would list too many images to be readable again."""
    if sum(len(json.dumps([left.key, left.reason])) + _LEFT_OUT_BYTES for left in left_out) > MAX_MANIFEST_BYTES // 2:
        last = left_out[-1]
        raise UserError(
            f"more images cannot be used than a manifest can list (one of them: {last.key}: {last.reason}): "
            "take them out of the source, or choose a --crop and --size that suit them; finished shards are kept"
        )


def _write_failure(error: OSError, out: Path, finished: int, total: int) -> UserError:
    kept = f"{finished:,} of {total:,} shards are finished and kept"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return UserError(f"the disk of {out} is full: {kept}; free some space and run the same command again")
    return UserError(f"{error.filename or out}: {error.strerror or error}: {kept}; run the same command again")


def _splits(records: list[ShardRecord]) -> dict[SplitName, Split]:
    """The shards of each split, in order."""
    splits: dict[SplitName, Split] = {}
    for split in SPLITS:
        made = [record for record in records if record.samples and record.file.startswith(f"{split}-")]
        shards = tuple(Shard(**record.model_dump(exclude={"left_out"})) for record in made)
        splits[split] = Split(samples=sum(shard.samples for shard in shards), shards=shards)
    return splits
