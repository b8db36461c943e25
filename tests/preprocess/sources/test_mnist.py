"""`preprocess mnist` on IDX files made here."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.shards.reader import ShardSet
from preprocess.sources.mnist import find_mnist, open_mnist
from tests.preprocess.trees import hashes, invoke


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_digits(folder: Path, end: str = "") -> dict[str, np.ndarray]:
    folder.mkdir()
    chance = np.random.default_rng(0)
    images = {}
    for part, count in (("train", 60), ("t10k", 20)):
        images[part] = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", images[part])
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", (np.arange(count) % 10).astype(np.uint8))
    return images


@pytest.mark.parametrize("end", ["", ".gz"])
def test_digits_and_labels(end: str, tmp_path: Path) -> None:
    images = write_digits(tmp_path / "idx", end)
    done = invoke("mnist", "--source", tmp_path / "idx", "--out", tmp_path / "out", "--workers", 1)
    assert done.exit_code == 0, done.stderr
    shard_set = ShardSet.open(tmp_path / "out")
    assert shard_set.manifest.image_shape == (28, 28, 1)
    assert {n: s.samples for n, s in shard_set.manifest.splits.items()} == {"train": 54, "valid": 6, "test": 20}
    for split, part in (("train", "train"), ("valid", "train"), ("test", "t10k")):
        found = shard_set.annotations(split)
        for key, label, image in zip(found.keys, found.label, np.concatenate(shard_set.images(split)), strict=True):
            number = int(key.split("-")[1])
            assert label == number % 10
            assert np.array_equal(image[..., 0], images[part][number])


def test_gzip_makes_no_difference(tmp_path: Path) -> None:
    for name, end in (("plain", ""), ("packed", ".gz")):
        write_digits(tmp_path / name, end)
        out = tmp_path / f"{name}-out"
        assert invoke("mnist", "--source", tmp_path / name, "--out", out, "--workers", 1).exit_code == 0
    assert hashes(tmp_path / "plain-out") == hashes(tmp_path / "packed-out")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_digits(tmp_path / "idx")
    path = tmp_path / "idx" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    done = invoke("mnist", "--source", tmp_path / "idx", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "t10k-images-idx3-ubyte" in done.stderr
    path.unlink()
    done = invoke("mnist", "--source", tmp_path / "idx", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "has no t10k-images-idx3-ubyte" in done.stderr


def test_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    done = invoke("mnist", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "$MNIST_ROOT" in done.stderr


def test_a_gz_that_a_browser_has_unpacked(tmp_path: Path) -> None:
    write_digits(tmp_path / "gz", ".gz")
    write_digits(tmp_path / "plain")
    for path in list((tmp_path / "plain").iterdir()):
        path.rename(path.with_name(path.name + ".gz"))
    for folder in ("gz", "plain"):
        done = invoke("mnist", "--source", tmp_path / folder, "--out", tmp_path / f"{folder}-out", "--workers", 1)
        assert done.exit_code == 0, done.stderr
    assert hashes(tmp_path / "gz-out") == hashes(tmp_path / "plain-out")


def test_a_file_of_each_name_in_a_folder_of_that_name(tmp_path: Path) -> None:
    write_digits(tmp_path / "in")
    for path in sorted((tmp_path / "in").iterdir()):
        path.rename(tmp_path / "moved")
        path.mkdir()
        (tmp_path / "moved").rename(path / path.name)
    assert len(open_mnist(tmp_path / "in", 0).table) == 80


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    write_digits(tmp_path / "in", ".gz")
    path = tmp_path / "in" / "train-images-idx3-ubyte.gz"
    with pytest.raises(UsageError, match=r"is a gzip file: unpack it, and give the folder"):
        find_mnist(path)
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte\.gz is a web page, not an IDX file"):
        open_mnist(tmp_path / "in", 0)
    path.rename(tmp_path / "in" / "mnist_train.csv")
    with pytest.raises(UsageError, match=r"has no train-images-idx3-ubyte .*it holds mnist_train\.csv"):
        open_mnist(tmp_path / "in", 0)
