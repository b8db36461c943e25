"""Landmarks reach the shards, in pixels of the source image."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds

from preprocess.shards.reader import ShardSet
from preprocess.sources.celeba_parquet import LANDMARK_NAMES
from tests.preprocess.trees import hashes, jpeg, shard, write_tree, write_zip

COUNT = 20


def place(number: int) -> list[int]:
    """Ten coordinates of very different lengths; a face may reach over the image's edge."""
    return [number, 109, -3 if number == 5 else 7, 111, 83, 132, 73, 152 + number, 108, 12345 if number == 9 else 0]


def write_landmarks(folder: Path, numbers: list[int], csv: bool = False) -> Path:
    rows = [[f"{number:06d}.jpg", *map(str, place(number))] for number in numbers]
    if csv:
        path = folder / "list_landmarks_align_celeba.csv"
        path.write_text("\n".join(",".join(row) for row in [["image_id", *LANDMARK_NAMES], *rows]) + "\n")
    else:
        path = folder / "list_landmarks_align_celeba.txt"
        lines = [str(len(rows)), " ".join(LANDMARK_NAMES) + " ", *("  ".join(row) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("csv", [False, True], ids=["txt", "csv"])
def test_landmarks_reach_the_shards(csv: bool, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", COUNT)
    write_landmarks(tree, [number for number in range(1, COUNT + 1) if number != 4], csv)
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "1 image is not in the list of landmarks" in done.stderr
    shard_set = ShardSet.open(tmp_path / "out")
    assert shard_set.manifest.landmark_names == LANDMARK_NAMES
    seen = set()
    for split in ("train", "valid", "test"):
        found = shard_set.annotations(split)
        for key, row in zip(found.keys, found.landmarks, strict=True):
            seen.add(int(key))
            assert np.isnan(row).all() if key == "000004" else row.tolist() == place(int(key))
    assert len(seen) == COUNT
    paths = [str(path) for path in shard_set.shard_paths("train")]
    for sample in wds.WebDataset(paths, shardshuffle=False).decode():
        number = int(sample["__key__"])
        expected = {} if number == 4 else dict(zip(LANDMARK_NAMES, place(number), strict=True))
        assert sample["json"].get("landmarks", {}) == expected


def test_samples_keep_one_size(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", COUNT)
    write_landmarks(tree, list(range(1, COUNT + 1)))
    assert shard(tree, tmp_path / "out").exit_code == 0
    manifest = ShardSet.open(tmp_path / "out").manifest
    record = manifest.layout.record_bytes
    assert all(s.bytes == s.samples * record + 1024 for split in manifest.splits.values() for s in split.shards)


def test_landmarks_inside_the_archive(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", COUNT)
    listed = write_landmarks(tree, list(range(1, COUNT + 1)))
    assert shard(tree, tmp_path / "out").exit_code == 0
    write_zip(tree, tree / "img_align_celeba.zip")
    with zipfile.ZipFile(tree / "img_align_celeba.zip", "a") as archive:
        archive.write(listed, "Anno/list_landmarks_align_celeba.txt")
    listed.unlink()
    assert shard(tree, tmp_path / "zip", "--kind", "archive").exit_code == 0
    tars = [{n: h for n, h in hashes(tmp_path / out).items() if n.endswith(".tar")} for out in ("out", "zip")]
    assert tars[0] == tars[1]


@pytest.mark.parametrize("value", ["inf", "--5", "left", "123456789"])
def test_a_damaged_landmark_is_named(value: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 4)
    path = write_landmarks(tree, [1, 2, 3, 4])
    path.write_text(path.read_text().replace(" 111", f" {value}", 1))
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 2
    assert f"list_landmarks_align_celeba.txt, line 3: '{value}' is not a number of pixels" in done.stderr


def test_landmarks_in_parquet_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    numbers = list(range(1, COUNT + 1))
    columns = {name: [place(n)[i] if n != 4 else None for n in numbers] for i, name in enumerate(LANDMARK_NAMES)}
    images = [{"bytes": jpeg(number), "path": f"{number:06d}.jpg"} for number in numbers]
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"image": images, **columns}), tmp_path / "in" / "0.parquet")
    assert shard(tmp_path / "in", tmp_path / "out").exit_code == 0
    found = ShardSet.open(tmp_path / "out").annotations("train")
    for key, row in zip(found.keys, found.landmarks, strict=True):
        assert np.isnan(row).all() if key == "000004" else row.tolist() == place(int(key))


def test_absent_landmarks_are_said_once_and_older_sets_are_read(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", COUNT)
    done = shard(tree, tmp_path / "out")
    assert done.stderr.count("without landmarks") == 1
    path = tmp_path / "out" / "manifest.json"
    plain = json.loads(path.read_text())
    del plain["landmark_names"]
    path.write_text(json.dumps(plain | {"schema_version": 1}))
    shard_set = ShardSet.open(tmp_path / "out")
    assert shard_set.annotations("train").landmarks.shape == (16, 0)
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 2
    assert "schema version 1 there, 2 now" in done.stderr
