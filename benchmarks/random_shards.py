"""Shards of random 64x64 images with their manifest: what the benchmarks feed on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from preprocess.shards.atomic import write_json
from preprocess.shards.manifest import MANIFEST_NAME, Crop, Manifest, Shard, Source, Split
from preprocess.shards.tar import END_OF_ARCHIVE, layout_of, npy_record

SHAPE, SHARD = (64, 64, 3), 4096
"""(H, W, C) of an image, and samples of a shard."""
LAYOUT = layout_of(SHAPE, 1000)


def write_random_shards(folder: Path, samples: int) -> list[tuple[Path, int]]:
    """One train split of ``samples`` random images in npy shards, and its manifest: (path, samples) of each shard."""
    shards = [
        (folder / f"train-{start // SHARD:06d}.tar", min(SHARD, samples - start)) for start in range(0, samples, SHARD)
    ]
    rng = np.random.default_rng(0)
    listed = tuple(_write_shard(path, count, number * SHARD, rng) for number, (path, count) in enumerate(shards))
    manifest = Manifest(
        source=Source(kind="images", fingerprint="0" * 64, images=samples),
        crop=Crop(kind="none"),
        resample="bilinear",
        codec="npy",
        image_shape=SHAPE,
        attribute_names=(),
        factor_names=(),
        layout=LAYOUT,
        seed=0,
        shard_size=SHARD,
        limit=None,
        splits={"train": Split(samples=samples, shards=listed)},
        left_out=(),
    )
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))
    return shards


def _write_shard(path: Path, samples: int, first_key: int, rng: np.random.Generator) -> Shard:
    with path.open("wb") as file:
        for key in range(first_key, first_key + samples):
            file.write(npy_record(f"{key:08d}", rng.integers(0, 256, SHAPE, np.uint8), b"{}", LAYOUT))
        file.write(END_OF_ARCHIVE)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(file=path.name, samples=samples, bytes=path.stat().st_size, sha256=digest)
