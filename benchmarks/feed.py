"""The mapped loader against a plain copy of the same bytes, and against webdataset's own pipeline, in one run.

    python benchmarks/feed.py [--samples 200000] [--seconds 3]

Writes npy shards of random 64x64 images into a temporary folder (2.7 GB for 200,000 samples), then prints images/s,
page cache warm, one process without workers, batches of 256.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from random_shards import LAYOUT, SHAPE, SHARD, write_random_shards
from rich.console import Console
from rich.table import Table

from pipeline.data.mapped import MmapLoader, ShardRegion
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import open_source
from pipeline.data.streaming import StreamingLoader
from preprocess.shards.reader import ShardSet

BATCH = 256


def rate(batches: Callable[[], Iterator[int]], seconds: float) -> float:
    """Images a second: ``batches`` yields the size of each batch, endlessly."""
    stream = batches()
    begin = time.perf_counter()
    while time.perf_counter() - begin < 2:  # warm: caches, queues, the page tables of a mapping
        next(stream)
    images, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        images += next(stream)
    return images / (time.perf_counter() - begin)


def copy_batches() -> Iterator[int]:
    """The limit: a plain copy of one batch's bytes into a preallocated batch, walking over 200 MB of source."""
    source = torch.randint(0, 256, (64 * BATCH, int(np.prod(SHAPE))), dtype=torch.uint8)
    target = torch.empty(BATCH, int(np.prod(SHAPE)), dtype=torch.uint8)
    while True:
        for start in range(0, len(source), BATCH):
            target.copy_(source[start : start + BATCH])
            yield BATCH


def mapped_batches(shards: ShardSet, prefetch: int | None) -> Callable[[], Iterator[int]]:
    """The mapped feed, shuffled: in the calling thread, or through its background thread."""

    def run() -> Iterator[int]:
        region = ShardRegion(shards, "train")
        region.read_ahead.join()
        feed = MmapLoader(region, torch.device("cpu"))
        plan = GlobalBatchSampler(len(region), BATCH, 0, 0, 1)
        if prefetch is None:
            buffer = torch.empty(BATCH, LAYOUT.image_bytes, dtype=torch.uint8)
            for step in range(1 << 40):
                region.gather(torch.tensor(plan.indices(step)), buffer)
                yield BATCH
        else:
            for batch in feed.batches(plan, 0, 1 << 40, prefetch):
                yield len(batch.images)

    return run


def streamed_batches(folder: Path) -> Iterator[int]:
    """The streamed feed over the same shards, in this process's thread."""
    source = dataclasses.replace(open_source(str(folder), False), hashed=True)
    samples = source.manifest.splits["train"].samples
    feed = StreamingLoader(source, 8192, torch.device("cpu"), 0)
    for batch in feed.batches(GlobalBatchSampler(samples, BATCH, 0, 0, 1), 0, 1 << 40, 4):
        yield len(batch.images)


def webdataset_batches(shards: list[tuple[Path, int]]) -> Iterator[int]:
    """The published library's own pipeline on the same shards."""
    paths = [str(path) for path, _ in shards]
    while True:
        dataset = wds.WebDataset(paths, shardshuffle=False).shuffle(1000).decode().to_tuple("image.npy").batched(BATCH)
        for (images,) in dataset:
            yield len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table("64x64 batches of 256", "images/s", "of the copy", title="Feed (one thread unless said)")
    with tempfile.TemporaryDirectory() as folder:
        shards = write_random_shards(Path(folder), options.samples)
        whole = ShardSet.open(folder)
        few = whole.without([path.name for path, _ in shards[max(1, 10_000 // SHARD) :]])
        copy = rate(copy_batches, options.seconds)
        rows = [
            ("plain copy into a preallocated batch", copy),
            ("mapped, 8,192 samples", rate(mapped_batches(few, None), options.seconds)),
            (f"mapped, {options.samples:,} samples", rate(mapped_batches(whole, None), options.seconds)),
            ("the same, gathered ahead by its thread", rate(mapped_batches(whole, 4), options.seconds)),
            (
                "streamed (npy shards, hashed as they pass)",
                rate(lambda: streamed_batches(Path(folder)), options.seconds),
            ),
            ("webdataset's own pipeline", rate(lambda: webdataset_batches(shards), options.seconds)),
        ]
    for name, images in rows:
        table.add_row(name, f"{images:,.0f}", f"{images / copy:.3f}")
    Console().print(table)
    Console().print(
        f"over webdataset: mapped {rows[2][1] / rows[5][1]:.0f} x, streamed {rows[4][1] / rows[5][1]:.1f} x"
    )


if __name__ == "__main__":
    main()
