"""Streaming: every sample once an epoch on any number of ranks and workers, resumable, damage is found."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.batch import LoaderError
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import ShardSource, load_images, open_source, stream_shard
from pipeline.data.streaming import StepReader, StreamingLoader
from preprocess.shards.reader import ShardSet
from tests.conftest import run_command
from tests.pipeline.launching import launch, weights

CPU = torch.device("cpu")


def hashed_source(folder: Path) -> ShardSource:
    """A folder whose content is compared as it is streamed, as that of an address is."""
    return replace(open_source(str(folder), False), hashed=True)


@pytest.fixture(scope="module", params=["npy", "png"])
def shards(request, face_shards: Path, faces_tree: Path, tmp_path_factory) -> Path:
    if request.param == "npy":
        return face_shards
    out = tmp_path_factory.mktemp("png") / "shards"
    words = ("--size", 32, "--shard-size", 100, "--workers", 1, "--codec", "png")
    done = run_command("preprocess", "celeba", "--source", faces_tree, "--out", out, *words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pixels(face_shards: Path) -> np.ndarray:
    """All training images, read without any loader; png is lossless, so they are those of the png shards too."""
    return np.concatenate(ShardSet.open(face_shards).images("train"))


@pytest.mark.parametrize(("ranks", "workers", "batch"), list(itertools.product([1, 2, 3], [1, 2, 3], [24, 30])))
def test_every_sample_once_an_epoch_and_equal_steps_on_every_rank(face_shards, pixels, ranks, workers, batch):
    source = hashed_source(face_shards)
    for epoch in range(2):
        seen = []
        for rank in range(ranks):
            sampler = GlobalBatchSampler(len(pixels), batch, 1, rank, ranks)
            first, last = epoch * sampler.batches_per_epoch, (epoch + 1) * sampler.batches_per_epoch
            reader = StepReader(source, sampler, 64, first, last)
            made = [b for w in range(workers) for b in reader.steps(w, workers)]
            assert len(made) == sampler.batches_per_epoch
            for images, indices in made:
                assert len(indices) == sampler.local_batch_size
                assert (images.numpy() == pixels[indices.numpy()]).all()
                seen += indices.tolist()
        assert len(seen) == len(set(seen)) == sampler.batches_per_epoch * batch


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_can_be_resumed_at_any_step(shards, pixels, workers):
    sampler = GlobalBatchSampler(len(pixels), 32, 7, 1, 2)
    steps = 2 * sampler.batches_per_epoch + 2

    def indices(first: int) -> list[list[int]]:
        loader = StreamingLoader(hashed_source(shards), 100, CPU, workers)
        found = []
        for batch in loader.batches(sampler, first, steps, 4):
            assert (batch.images.permute(0, 2, 3, 1).numpy() == pixels[batch.indices.numpy()]).all()
            found.append(batch.indices.tolist())
        return found

    whole = indices(0)
    assert len(whole) == steps
    for first in (1, sampler.batches_per_epoch - 1, sampler.batches_per_epoch, steps - 1):
        assert indices(first) == whole[first:]
    assert whole[0] != whole[sampler.batches_per_epoch], "every epoch has its own order"


def test_images_of_a_split_in_memory(shards, face_shards):
    valid = np.concatenate(ShardSet.open(face_shards).images("valid"))
    assert (load_images(hashed_source(shards), "valid", 10).numpy() == valid[:10]).all()


@pytest.mark.parametrize("fault", ["flipped bit", "cut in data", "cut at a member", "another header", "empty", "gone"])
def test_a_damaged_shard_is_named(shards, tmp_path, fault):
    source = open_source(str(shards), False)
    shard = source.shards("train")[1]
    folder = tmp_path / "shards"
    folder.mkdir()
    for file in shards.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / shard.file
    data = bytearray(path.read_bytes())
    if fault == "flipped bit":
        data[len(data) // 2] ^= 4
    elif fault == "another header":
        data[257:262] = b"xxxxx"
    else:
        keep = {
            "cut in data": len(data) // 2 + 77,
            "cut at a member": len(data) // 2 // 512 * 512,
            "empty": 0,
            "gone": 0,
        }
        del data[keep[fault] :]
    path.write_bytes(data)
    if fault == "gone":
        path.unlink()
    with pytest.raises(LoaderError, match=shard.file):
        list(stream_shard(hashed_source(folder), shard))


@pytest.mark.parametrize("address", ["file://{}", "pipe:cat {}/{{}}"])
def test_training_from_an_address(face_shards, tmp_path, address):
    where = address.format(face_shards)
    done = launch(face_shards, tmp_path / "run", "--allow-pipe", ranks=2, steps=16, data=where)
    assert done.returncode == 0, done.stderr
    assert f"streamed from {where}" in done.stderr
    local = launch(face_shards, tmp_path / "local", "data.mode=streamed", ranks=2, steps=16)
    assert local.returncode == 0, local.stderr
    assert all(torch.equal(w, weights(tmp_path / "run")[key]) for key, w in weights(tmp_path / "local").items())


def test_fewer_shards_than_ranks_is_refused_with_the_remedy(faces_tree, tmp_path):
    words = ("--size", 32, "--shard-size", 1000, "--workers", 1)
    assert (
        run_command("preprocess", "celeba", "--source", faces_tree, "--out", tmp_path / "one", *words).returncode == 0
    )
    done = launch(tmp_path / "one", tmp_path / "run", "data.mode=streamed", ranks=2)
    assert done.returncode == 1 and "--shard-size" in done.stderr, done.stderr
    done = launch(tmp_path / "one", tmp_path / "run", "data.mode=resident", ranks=2)
    assert done.returncode == 0, done.stderr


def test_resident_and_mapped_give_the_same_weights(face_shards, tmp_path):
    for mode in ("resident", "mapped"):
        assert launch(face_shards, tmp_path / mode, f"data.mode={mode}", steps=15).returncode == 0
    assert all(torch.equal(w, weights(tmp_path / "mapped")[key]) for key, w in weights(tmp_path / "resident").items())
