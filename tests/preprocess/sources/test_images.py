"""`preprocess images` on any folder, codecs, crops and filters, and the contact sheet."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from preprocess.containers.file_kinds import printable
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardError, ShardSet
from tests.preprocess.trees import encoded, hashes, invoke, jpeg, shard, smooth_picture, write_tree


def images(folder: Path, out: Path, *words: object) -> object:
    return invoke("images", folder, "--out", out, "--size", 32, "--workers", 1, *words)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_subfolders_are_labels(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / "in" / ("cats", "dogs")[number % 2] / f"{number}.jpg", jpeg(number, 60 + number, 50))
    done = images(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    shard_set = ShardSet.open(tmp_path / "out")
    assert shard_set.manifest.label_names == ("cats", "dogs")
    for split in ("train", "valid", "test"):
        found = shard_set.annotations(split)
        assert [int(key) % 2 for key in found.keys] == found.label.tolist()


def test_a_level_of_splits_is_taken(tmp_path: Path) -> None:
    for number, split in enumerate(["train"] * 5 + ["val"] * 2 + ["test"] * 3):
        write(tmp_path / "in" / split / "x" / f"{number}.png", encoded(Image.fromarray(smooth_picture(number)), "PNG"))
    assert images(tmp_path / "in", tmp_path / "out").exit_code == 0
    manifest = Manifest.read(tmp_path / "out")
    assert [split.samples for split in manifest.splits.values()] == [5, 2, 3]
    assert manifest.label_names == ("x",)


@pytest.mark.parametrize("above", ["", "faces/"], ids=["at the top", "in a folder"])
def test_a_stray_picture_does_not_undo_the_splits(above: str, tmp_path: Path) -> None:
    for number, split in enumerate(["Train"] * 4 + ["testing"] * 2):
        write(tmp_path / "in" / f"{above}{split}" / "x" / f"{number}.jpg", jpeg(number, 40, 40))
    write(tmp_path / "in" / f"{above}preview.jpg", jpeg(9, 40, 40))
    done = images(tmp_path / "in", tmp_path / "out", "--max-bad", 0.5)
    assert done.exit_code == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert [split.samples for split in manifest.splits.values()] == [4, 0, 2]
    assert manifest.label_names == ("x",)
    assert [left.key for left in manifest.left_out] == [f"{above}preview.jpg"]


def test_splits_beside_another_folder_are_labels_and_said(tmp_path: Path) -> None:
    for number, folder in enumerate(["train", "test", "extra"] * 2):
        write(tmp_path / "in" / folder / f"{number}.jpg", jpeg(number, 40, 40))
    done = images(tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "the folders test, train are taken for labels" in done.stderr
    assert Manifest.read(tmp_path / "out").label_names == ("extra", "test", "train")


def test_copies_never_straddle_the_split(tmp_path: Path) -> None:
    for number in range(40):
        for copy in ("a", "b", "c"):
            write(tmp_path / "in" / f"{copy}{number}.jpg", jpeg(number, 40, 40))
    assert images(tmp_path / "in", tmp_path / "out").exit_code == 0
    shard_set = ShardSet.open(tmp_path / "out")
    by_split = [{key[1:] for key in shard_set.annotations(split).keys} for split in ("train", "valid", "test")]
    assert all(by_split)
    assert sum(map(len, by_split)) == 40


def test_a_folder_of_odd_things(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture = Image.fromarray(smooth_picture(1))
    write(folder / "same.jpg", jpeg(1))
    write(folder / "sub" / "same.jpg", jpeg(2))
    write(folder / "gray.png", encoded(picture.convert("L"), "PNG"))
    write(folder / "dots.in.name.webp", encoded(picture, "WEBP"))
    write(folder / "bläk spaß.jpg", jpeg(3))
    write(folder / "zero.jpg", b"")
    write(folder / "notes.txt", b"no image")
    write(folder / ".hidden" / "x.jpg", jpeg(1))
    (folder / "dangling.jpg").symlink_to("/nowhere/at/all.jpg")
    (folder / "loop").symlink_to(folder)
    odd_name = sys.platform == "linux"
    if odd_name:
        write(Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.jpg")), jpeg(4))
    done = images(folder, tmp_path / "out", "--max-bad", 0.5)
    assert done.exit_code == 0, done.stderr
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.samples == 5 + odd_name
    assert {left.key: left.reason for left in manifest.left_out} == {
        "zero": "empty file",
        "dangling.jpg": "a link to /nowhere/at/all.jpg, which does not exist",
    }
    assert {group.reason: (group.files, group.names) for group in manifest.ignored} == {
        "a text file": (1, ("notes.txt",)),
        "a hidden folder": (1, (".hidden/",)),
        "a link to a folder that is read already": (1, ("loop/",)),
    }
    for words in ("1 files not used: a text file", "2 images left out"):
        assert words in done.stdout
    keys = {k for split in ("train", "valid", "test") for k in ShardSet.open(tmp_path / "out").annotations(split).keys}
    assert len(keys) == manifest.samples
    paths = [str(path) for split in manifest.splits for path in ShardSet.open(tmp_path / "out").shard_paths(split)]
    assert {sample["__key__"] for sample in wds.WebDataset(paths, shardshuffle=False).decode()} == keys


def test_folders_a_thousand_deep(tmp_path: Path) -> None:
    write(tmp_path / "in" / "1.jpg", jpeg(1))
    subprocess.run(["mkdir", "-p", tmp_path / "in" / ("d/" * 1100)], check=True)
    done = images(tmp_path / "in", tmp_path / "out")
    subprocess.run(["rm", "-r", tmp_path / "in" / "d"], check=True)  # too deep for Python's own
    assert done.exit_code == 0, done.stderr


def test_a_name_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b]0;title\x07é\n.jpg") == r"a\x1b]0;title\x07é\n.jpg"


def test_no_images_is_bad_usage(tmp_path: Path) -> None:
    assert images(tmp_path / "nowhere", tmp_path / "out").exit_code == 2
    done = images(tmp_path, tmp_path / "out")
    assert done.exit_code == 2
    assert "holds no images" in done.stderr


@pytest.mark.parametrize("words", [(), ("--max-bad", 0.1)], ids=["default", "given"])
def test_too_many_bad_images_fail_after_finishing(words: tuple[object, ...], tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / "in" / f"{number}.jpg", jpeg(number) if number > 1 else b"")
    out = tmp_path / "out"
    done = images(tmp_path / "in", out, *words)
    assert done.exit_code == 1
    assert "2 of 12 images (16.67%) were left out, more than --max-bad" in done.stderr
    assert invoke("verify", out).exit_code == 0
    made, stamps = hashes(out), {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    accepting = re.search(r"repeat the command with (--max-bad) ([0-9.]+)", done.stderr)
    assert images(tmp_path / "in", out, *accepting.groups()).exit_code == 0  # as the message says
    assert hashes(out) == made
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")} == stamps


def test_a_thousandth_of_bad_images_passes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(1000):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg(number % 3, 24, 24) if number else b"")
    assert images(tmp_path / "in", tmp_path / "out").exit_code == 0
    (tmp_path / "in" / "1.jpg").write_bytes(b"")
    assert images(tmp_path / "in", tmp_path / "two").exit_code == 1


def test_the_limit_does_not_miss_what_it_did_not_choose(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 20)
    (tree / "img_align_celeba" / "000004.jpg").unlink()
    assert shard(tree, tmp_path / "few", "--limit", 10).exit_code == 0
    assert shard(tree, tmp_path / "all").exit_code == 1


@pytest.mark.parametrize("codec", ["png", "webp", "jpg"])
def test_compressed_codecs(codec: str, tree: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shard(tree, out, "--codec", codec).exit_code == 0
    shard_set, plain = ShardSet.open(out), ShardSet.open(shards)
    expected = plain.annotations("train")
    found = shard_set.annotations("train")
    assert found.keys == expected.keys
    assert np.array_equal(found.attributes, expected.attributes)
    paths = [str(path) for path in shard_set.shard_paths("train")]
    samples = list(wds.WebDataset(paths, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == expected.keys
    for sample, image in zip(samples, np.concatenate(plain.images("train")), strict=True):
        difference = np.asarray(Image.open(io.BytesIO(sample[codec]))).astype(int) - image
        assert np.abs(difference).mean() < 3 if codec == "jpg" else not difference.any()
    assert invoke("verify", out).exit_code == 0
    with pytest.raises(ShardError, match="stream them"):
        shard_set.images("train")
    assert shard(tree, tmp_path / "two", "--codec", codec, "--workers", 2).exit_code == 0
    assert hashes(tmp_path / "two") == hashes(out)


PUBLISHED = {  # preset: (left, top, right, bottom) of 178x218
    "vlae108": (35, 55, 143, 163),
    "dcgan": (35, 55, 143, 163),
    "wae140": (19, 39, 159, 179),
    "vae148": (15, 35, 163, 183),
    "nvae": (15, 40, 163, 188),
    "provlae": (15, 45, 163, 193),
}


@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_presets_and_filters_equal_torchvision(preset: str, resample: str, tree: Path, tmp_path: Path) -> None:
    done = shard(tree, tmp_path / "out", "--preset", preset, "--resample", resample, "--limit", 6, size=64)
    assert done.exit_code == 0, done.stderr
    left, top, right, bottom = PUBLISHED[preset]
    resize = v2.Resize((64, 64), interpolation=InterpolationMode(resample), antialias=True)
    shard_set = ShardSet.open(tmp_path / "out")
    keys = shard_set.annotations("train").keys
    for key, image in zip(keys, np.concatenate(shard_set.images("train")), strict=True):
        pixels = Decoder().rgb((tree / "img_align_celeba" / f"{key}.jpg").read_bytes())[top:bottom, left:right]
        expected = resize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        assert np.array_equal(image, expected)


def test_preset_and_crop_exclude_each_other(tree: Path, tmp_path: Path) -> None:
    done = shard(tree, tmp_path / "out", "--preset", "nvae", "--crop", 100)
    assert done.exit_code == 2
    assert "cannot both be given" in done.stderr
    assert shard(tree, tmp_path / "out", "--preset", "mine").exit_code == 2


@pytest.mark.parametrize("codec", ["npy", "png"])
def test_contact_sheet(codec: str, tree: Path, tmp_path: Path) -> None:
    assert shard(tree, tmp_path / "out", "--codec", codec).exit_code == 0
    done = invoke("show", tmp_path / "out", "--out", tmp_path / "sheet.png", "--columns", 8, "--rows", 2)
    assert done.exit_code == 0, done.stderr
    assert "train" in done.stdout
    assert Image.open(tmp_path / "sheet.png").size == (8 * 34 + 2, (2 + 2 * 34) + 2 * (4 + 34))


def test_contact_sheet_of_damaged_shards(tree: Path, tmp_path: Path) -> None:
    assert shard(tree, tmp_path / "out").exit_code == 0
    os.truncate(tmp_path / "out" / "valid-000000.tar", 100)
    done = invoke("show", tmp_path / "out", "--out", tmp_path / "sheet.png")
    assert done.exit_code == 1
    assert "valid-000000.tar" in done.stderr
    assert not (tmp_path / "sheet.png").exists()
