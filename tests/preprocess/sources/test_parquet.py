"""CelebA as Hugging Face has it, through the command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardSet
from tests.preprocess.trees import ATTRIBUTES, attribute_signs, command, hashes, jpeg, partition, shard

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SPLIT_FILES = ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001")
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_parquet(path: Path, numbers: list[int], image: Callable[[int], dict | None], **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([image(number) for number in numbers], IMAGE_TYPE)
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=7)


def picture(number: int) -> dict:
    return {"bytes": jpeg(number), "path": f"{number:06d}.jpg"}


def attribute_columns(numbers: list[int], form: Callable[[int], object] = lambda sign: sign > 0) -> dict[str, list]:
    signs = [attribute_signs(number) for number in numbers]
    return {name: [form(row[i]) for row in signs] for i, name in enumerate(ATTRIBUTES)}


def write_dataset(folder: Path, form: Callable[[int], object] = lambda sign: sign > 0) -> Path:
    """The tree of the other tests, as the hub would have it."""
    for split, name in enumerate(SPLIT_FILES):
        numbers = [number for number in range(1, 51) if partition(number, 50) == split]
        identities = {"celeb_id": [number // 3 + 1 for number in numbers]}
        columns = attribute_columns(numbers, form) | identities
        write_parquet(folder / "data" / f"{name}.parquet", numbers, picture, **columns)
    return folder


def tars(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".tar")}


@pytest.mark.parametrize(
    "form", [lambda sign: sign > 0, lambda sign: sign, lambda sign: int(sign > 0)], ids=["bool", "signs", "0 and 1"]
)
def test_parquet_makes_the_shards_that_the_folder_makes(form: Callable, shards: Path, tmp_path: Path) -> None:
    done = shard(write_dataset(tmp_path / "in", form), tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "Hugging Face parquet files (parquet), 50 images" in done.stderr
    assert tars(tmp_path / "out") == tars(shards)
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_parquet_killed_and_run_again(shards: Path, tmp_path: Path) -> None:
    source, out = write_dataset(tmp_path / "in"), tmp_path / "out"
    assert shard(source, tmp_path / "whole", shard_size=2).exit_code == 0
    process = command(source, out, "--shard-size", 2)
    while len(list(out.glob("*.tar"))) < 3 and process.poll() is None:
        pass
    process.kill()
    process.communicate()
    done = shard(source / "data", out, "--kind", "parquet", shard_size=2)
    assert done.exit_code == 0, done.stderr
    assert hashes(out) == hashes(tmp_path / "whole")


def test_paths_in_the_file_are_names_only(tmp_path: Path) -> None:
    names = {1: "../../evil.jpg", 2: "/etc/absolute.jpg", 3: "a b\n.c.jpg", 4: "x.jpg"}
    write_parquet(tmp_path / "in.parquet", [1, 2, 3, 4], lambda n: {"bytes": jpeg(n), "path": names[n]})
    out = tmp_path / "deep" / "out"
    assert shard(tmp_path / "in.parquet", out).exit_code == 0
    found = [key for split in ("train", "valid", "test") for key in ShardSet.open(out).annotations(split).keys]
    assert {"evil", "absolute", "x"} < set(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in.parquet"]


@pytest.mark.parametrize("path", [None, "", "same.jpg"])
def test_images_without_names_of_their_own_are_numbered(path: str | None, tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "0.parquet", [1, 2, 3], lambda n: {"bytes": jpeg(n), "path": path})
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    found = [k for split in ("train", "valid", "test") for k in ShardSet.open(tmp_path / "out").annotations(split).keys]
    assert sorted(found) == ["000001", "000002", "000003"]
    for words in ("without attributes", "without identities", "80/10/10"):
        assert done.stderr.count(words) == 1


def test_a_lone_train_file_is_split(tmp_path: Path) -> None:
    numbers = list(range(1, 41))
    write_parquet(tmp_path / "in" / "train-00000.parquet", numbers, picture, **attribute_columns(numbers))
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "one split only (train)" in done.stderr
    assert all(split.samples for split in Manifest.read(tmp_path / "out").splits.values())


def test_square_images_nulls_and_other_columns(tmp_path: Path) -> None:
    def square(number: int) -> dict | None:
        return {"bytes": jpeg(number, 128, 128) if number != 3 else None, "path": None} if number != 4 else None

    columns = {"Smiling": [True, None] * 3, "label": [5] * 6, "prompt_string": ["a face"] * 6}
    write_parquet(tmp_path / "in" / "train" / "0000.parquet", list(range(1, 7)), square, **columns)
    done = shard(tmp_path / "in", tmp_path / "out", "--max-bad", 0.5)
    assert done.exit_code == 0, done.stderr
    assert "the images are square" in done.stderr
    assert "columns that are not used: prompt_string" in done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert [(left.key, left.reason) for left in manifest.left_out] == [
        ("000003", "no image in this row of the file"),
        ("000004", "no image in this row of the file"),
    ]
    assert manifest.crop.kind == "square"
    for split in ("train", "valid", "test"):
        found = ShardSet.open(tmp_path / "out").annotations(split)
        assert found.attributes[:, 0].tolist() == [1 if int(key) % 2 else -1 for key in found.keys]
        assert (found.label == 5).all()


def test_what_no_means_is_not_guessed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "0.parquet", [1, 2, 3], picture, Smiling=[0, 1, -1])
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 2
    assert "both 0 and -1" in done.stderr


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in")
    path = source / "data" / f"{SPLIT_FILES[1]}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    done = shard(source, tmp_path / "out")
    assert done.exit_code == 2
    assert path.name in done.stderr
    assert "download it again" in done.stderr
    path.write_bytes(whole[:4] + np.random.default_rng(0).bytes(3000) + whole[3004:])
    done = shard(source, tmp_path / "out")
    assert done.exit_code in {1, 2}
    assert path.name in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.tar"))
    path.write_bytes(whole)
    assert shard(source, tmp_path / "out").exit_code == 0


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["no images"]}), tmp_path / "in" / "train-0.parquet")
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 2
    assert "no column `image`" in done.stderr
    shutil.rmtree(tmp_path / "in")
    write_dataset(tmp_path / "in")
    write_parquet(tmp_path / "in" / "data" / "train-1.parquet", [60], picture)
    done = shard(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 2
    assert "other columns" in done.stderr


def test_without_pyarrow_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_dataset(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = shard(source, tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.strip().endswith("reading parquet files needs pyarrow: pip install 'mmd-vlae[parquet]'")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "words"), [("split", ["train", "validation", "test"]), ("partition", [0, 1, 2])], ids=["names", "numbers"]
)
def test_a_column_of_splits_and_plain_bytes(name: str, words: list, shards: Path, tmp_path: Path) -> None:
    numbers = list(range(1, 51))
    splits = pa.array([words[partition(number, 50)] for number in numbers])
    table = pa.table({"jpg": pa.array([jpeg(number) for number in numbers], pa.binary()), name: splits})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    done = shard(tmp_path / "in.parquet", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "80/10/10" not in done.stderr
    expected, found = ShardSet.open(shards), ShardSet.open(tmp_path / "out")
    assert found.manifest.attribute_names == ()
    for split in ("train", "valid", "test"):
        assert found.annotations(split).keys == expected.annotations(split).keys
        for mine, theirs in zip(found.images(split), expected.images(split), strict=True):
            assert np.array_equal(mine, theirs)
