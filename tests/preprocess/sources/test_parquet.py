"""CelebA as Hugging Face has it, through the command."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.errors import UsageError
from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardSet
from preprocess.sources.celeba import open_celeba
from preprocess.sources.index import Catalogue
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


def test_ambiguous_negative_value_is_rejected(tmp_path: Path) -> None:
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


def catalogue(source: Path) -> Catalogue:
    return open_celeba(source, 0)


@pytest.mark.parametrize("form", ["large_string", "string_view", "dictionary"])
@pytest.mark.parametrize("content", ["large_binary", "binary_view", "binary"])
def test_every_type_of_text_and_bytes(form: str, content: str, shards: Path, tmp_path: Path) -> None:
    text = pa.dictionary(pa.int32(), pa.string()) if form == "dictionary" else getattr(pa, form)()
    numbers = list(range(1, 51))
    arrays = [
        pa.array([jpeg(n) for n in numbers], getattr(pa, content)()),
        pa.array([f"{n:06d}.jpg" for n in numbers], pa.string()).cast(text),
    ]
    table = pa.table(
        {
            "image": pa.StructArray.from_arrays(arrays, ["bytes", "path"]),
            **attribute_columns(numbers),
            "celeb_id": [n // 3 + 1 for n in numbers],
            "split": [("train", "validation", "test")[partition(n, 50)] for n in numbers],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    done = shard(tmp_path / "in.parquet", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert tars(tmp_path / "out") == tars(shards)


@pytest.mark.parametrize(
    "form",
    [float, lambda sign: str(sign > 0), str, lambda sign: "1.0" if sign > 0 else "0.0"],
    ids=["floats", "True and False", "texts of signs", "texts of floats"],
)
def test_the_values_that_lists_accept(form: Callable, shards: Path, tmp_path: Path) -> None:
    assert shard(write_dataset(tmp_path / "in", form), tmp_path / "out").exit_code == 0
    assert tars(tmp_path / "out") == tars(shards)


def test_unknown_values_and_other_numbers(tmp_path: Path) -> None:
    columns = {
        "A": [1.0, float("nan"), None],
        "B": ["True", "", "False"],
        "age": [23.5, 1.0, 0.0],
        "name": ["x", "y", "z"],
    }
    write_parquet(tmp_path / "in.parquet", [1, 2, 3], picture, **columns)
    found = catalogue(tmp_path / "in.parquet")
    assert found.attribute_names == ("A", "B")
    assert found.table.attributes.tolist() == [[1, 1], [-1, -1], [-1, 0]]
    assert "columns that are not used: age, name" in found.notes


def test_rows_with_a_path_only_are_named(tmp_path: Path) -> None:
    def path_only(number: int) -> dict:
        return {"bytes": jpeg(number) if number % 4 else None, "path": f"/data/{number:06d}.jpg"}

    write_parquet(tmp_path / "in.parquet", list(range(1, 9)), path_only)
    done = shard(tmp_path / "in.parquet", tmp_path / "out", "--max-bad", 0.5)
    assert done.exit_code == 0, done.stderr
    reasons = {left.key: left.reason for left in Manifest.read(tmp_path / "out").left_out}
    assert list(reasons) == ["000004", "000008"]
    assert reasons["000004"].startswith("only a path in the file (/data/000004.jpg), not the image: get the data set")
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"]}), tmp_path / "paths.parquet")
    with pytest.raises(UsageError, match="its column `image` holds paths"):
        catalogue(tmp_path / "paths.parquet")


def test_names_of_classes_are_kept(tmp_path: Path) -> None:
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]},
        "gender": {"_type": "ClassLabel", "names": ["female", "male"]},
    }
    images = pa.array([picture(n) for n in (1, 2, 3)], IMAGE_TYPE)
    table = pa.table({"image": images, "label": [2, 0, 1], "gender": [0, 1, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "in.parquet")
    found = catalogue(tmp_path / "in.parquet")
    assert found.label_names == ("cat", "dog", "owl") and found.table.label.tolist() == [2, 0, 1]
    assert "attribute gender: 0 is female, 1 is male" in found.notes
    write_parquet(tmp_path / "words.parquet", [1, 2, 3], picture, label=["owl", "cat", None])
    found = catalogue(tmp_path / "words.parquet")
    assert found.label_names == ("cat", "owl") and found.table.label.tolist() == [1, 0, -1]


@pytest.mark.parametrize("folders", ["split={}", "data/partition={}", "v=1/split={}"])
@pytest.mark.parametrize("words", [("train", "validation", "test"), ("0", "1", "2")], ids=["names", "numbers"])
def test_folders_of_splits_as_hive_writes_them(folders: str, words: tuple[str, ...], tmp_path: Path) -> None:
    for split, word in enumerate(words):
        numbers = list(range(1 + 10 * split, 4 + 9 * split))
        write_parquet(tmp_path / "in" / folders.format(word) / "part-0.parquet", numbers, picture)
    found = catalogue(tmp_path / "in")
    assert found.split.tolist() == [0] * 3 + [1] * 2 + [2]


def test_parquet_files_below_others_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in" / "a.PARQUET", [1, 2, 3], picture)
    write_parquet(tmp_path / "in" / "more" / "b.parquet", [4, 5], picture)
    (tmp_path / "in" / "._a.parquet").write_bytes(b"\0\5\x16\7")
    (tmp_path / "in" / "preview.png").write_bytes(jpeg(1, 20, 20))
    found = catalogue(tmp_path / "in")
    assert found.source.images == 3
    assert any("1 parquet file" in note for note in found.notes) and any("(1 image)" in note for note in found.notes)


def test_files_that_differ_in_order_width_and_form(tmp_path: Path) -> None:
    numbers = [1, 2, 3]
    lists = pa.array([list(jpeg(number)) for number in numbers], pa.list_(pa.uint8()))
    signs = {"Male": [1, -1, 1], "Young": [1, 0, 1], "celeb_id": pa.array([1, 2, 3], pa.int32())}
    pq.write_table(pa.table({"image": lists, **signs}), tmp_path / "train-00000-of-00003.parquet")
    signs = {"celeb_id": [4, 5, 6], "Young": [0, 0, 1], "Male": [-1, -1, 1]}
    pq.write_table(pa.table({**signs, "image": lists}), tmp_path / "train-00002-of-00003.parquet")
    found = open_celeba(tmp_path, 0)
    assert found.table.attributes.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0], [0, 0], [1, 1]]
    assert found.table.identity.tolist() == [1, 2, 3, 4, 5, 6]
    assert any(note.startswith("1 of 3 files ") and "train-…-of-00003 are missing" in note for note in found.notes)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert found.unpack is not None
    found.unpack(scratch)
    assert all(isinstance(image, np.ndarray) for image in found.reader(range(6), scratch).pixels())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page: download it again"),
        (b"", "is empty: download it again"),
    ],
)
def test_what_is_called_parquet(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        open_celeba(tmp_path, 0)


def test_labels_with_fractions_and_columns_without_images(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [1, 2], picture, label=[0.5, 1.0])
    found = open_celeba(tmp_path, 0)
    assert found.table.label.tolist() == [-1, -1] and "holds fractions" in "\n".join(found.notes)
    pq.write_table(pa.table({"url": ["http://x"], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="its columns are: url, text"):
        open_celeba(tmp_path, 0)
