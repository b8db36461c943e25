"""All loaders give the same pixels in the same order."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.batch import Batch
from pipeline.data.loader import InMemoryLoader
from pipeline.data.mapped import MmapLoader, ShardRegion
from pipeline.data.sampler import GlobalBatchSampler
from preprocess.shards.reader import ShardSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(face_shards: Path) -> ShardSet:
    return ShardSet.open(face_shards)


@pytest.fixture(scope="module")
def pixels(shards: ShardSet) -> np.ndarray:
    """All training images, read without any loader: (n, H, W, C)."""
    return np.concatenate(shards.images("train"))


@pytest.fixture(params=["mapped from files", "mapped from memory", "resident"])
def loader(request, shards: ShardSet, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    if request.param == "resident":
        return InMemoryLoader(torch.from_numpy(pixels))
    if request.param == "mapped from files":
        monkeypatch.setattr("pipeline.data.mapped.spare_memory", lambda: 0)
    region = ShardRegion(shards, "train")
    region.read_ahead.join()
    return MmapLoader(region, CPU)


def as_stored(batch: Batch) -> np.ndarray:
    return batch.images.permute(0, 2, 3, 1).numpy()


def test_every_batch_holds_the_sampled_images(loader, pixels: np.ndarray):
    sampler = GlobalBatchSampler(len(pixels), 32, seed=5, rank=1, world_size=2)
    steps = 2 * sampler.batches_per_epoch + 3
    for step, batch in enumerate(loader.batches(sampler, 0, steps, 3)):
        assert (batch.indices.numpy() == sampler.indices(step)).all()
        assert (as_stored(batch) == pixels[sampler.indices(step)]).all()
    assert step == steps - 1


def test_any_indices_can_be_loaded(loader, pixels: np.ndarray):
    indices = np.array([len(pixels) - 1, 0, 7, 7])
    assert (as_stored(loader.load(indices)) == pixels[indices]).all()


@pytest.mark.parametrize("index", [-1, 10**9])
def test_an_index_outside_the_split_is_refused(loader, index: int):
    with pytest.raises(IndexError):
        loader.load(np.array([0, index]))


def test_an_error_in_the_loaders_thread_is_raised_in_the_trainer(shards: ShardSet):
    loader = MmapLoader(ShardRegion(shards, "train"), CPU)
    too_many = GlobalBatchSampler(10**6, 32, seed=0, rank=0, world_size=1)
    with pytest.raises(IndexError):
        list(loader.batches(too_many, 0, 10, 2))
    assert not [t for t in threading.enumerate() if t.name == "loader"]


def test_closing_the_batches_ends_the_thread(shards: ShardSet):
    loader = MmapLoader(ShardRegion(shards, "train"), CPU)
    batches = loader.batches(GlobalBatchSampler(loader.samples, 32, 0, 0, 1), 0, 10**6, 2)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "loader"]


def test_the_loaders_thread_does_not_change_the_trainers_thread_count(shards: ShardSet):
    loader = MmapLoader(ShardRegion(shards, "train"), CPU)
    torch.set_num_threads(2)
    try:
        next(loader.batches(GlobalBatchSampler(loader.samples, 32, 0, 0, 1), 0, 10, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
