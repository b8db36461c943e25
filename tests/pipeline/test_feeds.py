"""The feeds: the right pixels in the right order, whatever lies under them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.in_memory import InMemoryLoader
from pipeline.data.mapped import Batch, MmapLoader, open_region
from pipeline.data.sampler import GlobalBatchSampler
from preprocess.shards.reader import ShardSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(face_shards: Path) -> ShardSet:
    return ShardSet.open(face_shards)


@pytest.fixture(scope="module")
def pixels(shards: ShardSet) -> np.ndarray:
    """All training images, read without any feed: (n, H, W, C)."""
    return np.concatenate(shards.images("train"))


@pytest.fixture(params=["mapped from files", "mapped from memory", "resident"])
def feed(request, shards: ShardSet, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    if request.param == "resident":
        return InMemoryLoader(torch.from_numpy(pixels))
    if request.param == "mapped from files":
        monkeypatch.setattr("pipeline.data.shard_region.memory_to_spare", lambda: 0)
    region = open_region(shards, "train")
    region.wait()
    return MmapLoader(region, shards.manifest.image_shape, CPU)


def as_stored(batch: Batch) -> np.ndarray:
    return batch.images.permute(0, 2, 3, 1).numpy()


def test_every_batch_holds_the_planned_images(feed, pixels: np.ndarray):
    plan = GlobalBatchSampler(len(pixels), 32, seed=5, rank=1, world_size=2)
    steps = 2 * plan.batches_per_epoch + 3
    for step, batch in enumerate(feed.batches(plan, 0, steps, 3)):
        assert (batch.rows.numpy() == plan.rows(step)).all()
        assert (as_stored(batch) == pixels[plan.rows(step)]).all()
    assert step == steps - 1


def test_any_rows_can_be_loaded(feed, pixels: np.ndarray):
    rows = np.array([len(pixels) - 1, 0, 7, 7])
    assert (as_stored(feed.load(rows)) == pixels[rows]).all()


@pytest.mark.parametrize("row", [-1, 10**9])
def test_a_row_outside_the_split_is_refused(feed, row: int):
    with pytest.raises(IndexError):
        feed.load(np.array([0, row]))


def test_an_error_in_the_feeds_thread_reaches_the_trainer_and_ends_the_thread(shards: ShardSet):
    feed = MmapLoader(open_region(shards, "train"), shards.manifest.image_shape, CPU)
    too_many = GlobalBatchSampler(10**6, 32, seed=0, rank=0, world_size=1)
    with pytest.raises(IndexError):
        list(feed.batches(too_many, 0, 10, 2))
    assert not [t for t in threading.enumerate() if t.name == "feed"]


def test_a_consumer_that_stops_early_ends_the_thread(shards: ShardSet):
    feed = MmapLoader(open_region(shards, "train"), shards.manifest.image_shape, CPU)
    batches = feed.batches(GlobalBatchSampler(feed.samples, 32, 0, 0, 1), 0, 10**6, 2)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "feed"]


def test_the_feeds_thread_leaves_the_trainers_threads_alone(shards: ShardSet):
    feed = MmapLoader(open_region(shards, "train"), shards.manifest.image_shape, CPU)
    torch.set_num_threads(2)
    try:
        next(feed.batches(GlobalBatchSampler(feed.samples, 32, 0, 0, 1), 0, 10, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
