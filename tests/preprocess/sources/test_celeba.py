"""`preprocess celeba` through the command: what comes out of trees, archives and lists as people have them."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
import webdataset as wds
from torchvision.transforms import v2

from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardSet
from tests.preprocess.trees import (
    ATTRIBUTES,
    attribute_signs,
    hashes,
    invoke,
    jpeg,
    partition,
    shard,
    write_lists,
    write_tree,
    write_zip,
)


def test_pixels_equal_torchvision(tree: Path, shards: Path) -> None:
    shard_set = ShardSet.open(shards)
    transform = v2.Compose([v2.CenterCrop(148), v2.Resize(32, antialias=True)])
    for split in ("train", "valid", "test"):
        images = np.concatenate(shard_set.images(split))
        for key, image in zip(shard_set.annotations(split).keys, images, strict=True):
            data = (tree / "img_align_celeba" / f"{key}.jpg").read_bytes()
            expected = transform(torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1))
            assert np.array_equal(image, expected.permute(1, 2, 0).numpy())


def test_annotations_reach_the_shards(shards: Path) -> None:
    shard_set = ShardSet.open(shards)
    assert shard_set.manifest.attribute_names == ATTRIBUTES
    assert {name: split.samples for name, split in shard_set.manifest.splits.items()} == {
        "train": 40,
        "valid": 5,
        "test": 5,
    }
    for index, split in enumerate(("train", "valid", "test")):
        found = shard_set.annotations(split)
        for row, key in enumerate(found.keys):
            number = int(key)
            assert partition(number, 50) == index
            assert found.attributes[row].tolist() == [(sign + 1) // 2 for sign in attribute_signs(number)]
            assert found.identity[row] == number // 3 + 1
            assert found.label[row] == -1


def test_published_webdataset_reads_the_shards(shards: Path) -> None:
    shard_set = ShardSet.open(shards)
    ours = np.concatenate(shard_set.images("train"))
    paths = [str(path) for path in shard_set.shard_paths("train")]
    samples = list(wds.WebDataset(paths, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == shard_set.annotations("train").keys
    assert np.array_equal(np.stack([sample["image.npy"] for sample in samples]), ours)
    first = samples[0]["json"]
    assert first["key"] == samples[0]["__key__"]
    assert first["source"] == f"{first['key']}.jpg"
    assert set(first) == {"key", "attributes", "identity", "source"}


def test_bytes_do_not_depend_on_workers_or_container(tree: Path, shards: Path, tmp_path: Path) -> None:
    assert shard(tree, tmp_path / "two", "--workers", 2).exit_code == 0
    assert hashes(tmp_path / "two") == hashes(shards)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        holder = tmp_path / f"zip{method}"
        holder.mkdir()
        write_zip(tree, holder / "img_align_celeba.zip", method)
        for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
            shutil.copy(tree / name, holder)
        assert shard(holder, holder / "shards").exit_code == 0
        assert [shard_hashes(holder / "shards")] == [shard_hashes(shards)]


def shard_hashes(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".tar")}


def test_the_seed_and_the_limit_choose_samples(tree: Path, tmp_path: Path) -> None:
    for name, words in {"a": (), "b": ("--seed", 1), "c": ("--limit", 20)}.items():
        assert shard(tree, tmp_path / name, *words).exit_code == 0
    keys = {name: ShardSet.open(tmp_path / name).annotations("train").keys for name in "abc"}
    assert keys["a"] != keys["b"]
    assert set(keys["a"]) == set(keys["b"])
    assert keys["c"] == keys["a"][:16]
    assert [split.samples for split in Manifest.read(tmp_path / "c").splits.values()] == [16, 2, 2]
    assert shard(tree, tmp_path / "two", "--limit", 2).exit_code == 0
    assert [split.samples for split in Manifest.read(tmp_path / "two").splits.values()] == [1, 1, 0]


def test_factors_are_carried_along(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 10)
    rows = [f"{n:06d}.jpg,{n / 7:.6f},{'' if n == 3 else -n}" for n in range(1, 11)]
    (tree / "factors.csv").write_text("image,light_x,smile\n" + "\n".join(rows) + "\n")
    assert shard(tree, tmp_path / "out").exit_code == 0
    found = ShardSet.open(tmp_path / "out").annotations("train")
    for key, (light, smile) in zip(found.keys, found.factors, strict=True):
        assert light == pytest.approx(int(key) / 7, abs=1e-5)
        assert np.isnan(smile) if int(key) == 3 else smile == -int(key)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.split("\n", 1)[1],
        lambda text: text.replace(" ", "    "),
        lambda text: "\ufeff" + text,
        lambda text: re.sub(r"[ ]+", ",", "image_id," + text.split("\n", 1)[1].replace(" \n", "\n", 1)),
    ],
    ids=["crlf", "no count line", "runs of blanks", "byte order mark", "csv"],
)
def test_attribute_lists_in_every_form(change, shards: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    path = tree / "list_attr_celeba.txt"
    path.write_bytes(change(path.read_text()).encode())
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert shard_hashes(tmp_path / "out") == shard_hashes(shards)


@pytest.mark.parametrize(
    ("name", "line", "text", "words"),
    [
        ("list_attr_celeba.txt", 5, "000003.jpg 1 -1", "line 5: 3 columns where 4 are expected"),
        ("list_attr_celeba.txt", 5, "000003.jpg 1 -1 2", "line 5: '2' is not an attribute's 1 or -1"),
        ("list_attr_celeba.txt", 5, "000002.jpg 1 -1 1", "line 5: 000002.jpg is listed twice"),
        ("list_eval_partition.txt", 2, "000002.jpg 3", "line 2: '3' is not a valid partition"),
        ("identity_CelebA.txt", 7, "000007.jpg", "line 7: 1 columns where 2 are expected"),
        ("identity_CelebA.txt", 1, "000001.jpg", "line 1: 1 columns where 2 are expected"),
        ("list_attr_celeba.txt", 1, "<!DOCTYPE html>", "a web page"),
    ],
)
def test_a_damaged_list_is_named_with_its_line(name: str, line: int, text: str, words: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "img_align_celeba").mkdir(parents=True)
    (tree / "img_align_celeba" / "000001.jpg").write_bytes(jpeg(1))
    write_lists(tree, 10)
    lines = (tree / name).read_text().splitlines()
    lines[line - 1] = text
    (tree / name).write_text("\n".join(lines))
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 2
    assert name in done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_partition_in_words(shards: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    path = tree / "list_eval_partition.txt"
    words = ("train", "Validation", "test")
    rows = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(f"{name} {words[int(number)]}" for name, number in rows))
    assert shard(tree, tmp_path / "out").exit_code == 0
    assert shard_hashes(tmp_path / "out") == shard_hashes(shards)


def test_an_unknown_partition_is_not_taken_for_a_header(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 10)
    path = tree / "list_eval_partition.txt"
    path.write_text("\n".join(line.split()[0] + " holdout" for line in path.read_text().splitlines()))
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 2
    assert "line 1: 'holdout' is not a valid partition (0, 1 or 2, or train, valid or test)" in done.stderr
    path.write_text("10\nimage_id partition\n")
    done = shard(tree, tmp_path / "out")
    assert done.exit_code == 2
    assert "lists no images" in done.stderr


def test_missing_lists_are_said_once(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        (tree / name).unlink()
    done = shard(tree / "img_align_celeba", tmp_path / "out")
    assert done.exit_code == 0
    for words in ("without attributes", "80/10/10", "without identities"):
        assert done.stderr.count(words) == 1
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.attribute_names == ()
    assert all(split.samples for split in manifest.splits.values())


def test_damaged_images_are_left_out_with_their_reasons(tree: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tree"
    shutil.copytree(tree, broken)
    images = broken / "img_align_celeba"
    whole = (images / "000001.jpg").read_bytes()
    (images / "000001.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "000002.jpg").write_bytes(b"")
    (images / "000003.jpg").write_bytes(b"not an image at all")
    (images / "000004.jpg").unlink()
    (images / "000005.jpg").write_bytes(jpeg(5, 120, 140))
    (images / "000006.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    (images / "000007.jpg").write_bytes(jpeg(7, 200, 300))
    done = shard(broken, tmp_path / "out", "--max-bad", 0.5)
    assert done.exit_code == 0, done.stderr
    assert "6 images left out" in done.stdout
    manifest = Manifest.read(tmp_path / "out")
    reasons = {left.key: left.reason for left in manifest.left_out}
    assert manifest.samples == 44
    assert sorted(reasons) == [f"00000{n}" for n in range(1, 7)]
    assert "damaged JPEG" in reasons["000001"]
    assert reasons["000002"] == "empty file"
    assert "not an image" in reasons["000003"]
    assert "no such image" in reasons["000004"]
    assert "smaller than the crop" in reasons["000005"]
    assert "damaged JPEG" in reasons["000006"]
    clean = json.loads(json.dumps(hashes(tmp_path / "out")))
    assert shard(broken, tmp_path / "again", "--workers", 2, "--max-bad", 0.5).exit_code == 0
    assert hashes(tmp_path / "again") == clean


def test_a_damaged_zip_member_is_left_out(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "img_align_celeba.zip"
    write_zip(tree, path)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("img_align_celeba/000009.jpg").header_offset
    data = bytearray(path.read_bytes())
    data[offset + 1000] ^= 1
    path.write_bytes(data)
    assert shard(path, tmp_path / "out").exit_code == 1
    (left,) = Manifest.read(tmp_path / "out").left_out
    assert left.key == "000009"
    assert "checksum" in left.reason


def test_names_in_an_archive_are_not_used_as_paths(tmp_path: Path) -> None:
    names = ("img/odd name.jpg", "a b\n.c.jpg", "__MACOSX/._x.jpg")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in names:
            archive.writestr(name, jpeg(1))
    out = tmp_path / "deep" / "out"
    assert shard(tmp_path / "odd.zip", out).exit_code == 0
    assert Manifest.read(out).samples == 2
    keys = [key for split in ("train", "valid", "test") for key in ShardSet.open(out).annotations(split).keys]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)
    for number, name in enumerate(("../../evil.jpg", "/etc/absolute.jpg")):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("good.jpg", jpeg(1))
            archive.writestr(name, jpeg(1))
        done = shard(tmp_path / "evil.zip", tmp_path / f"evil-{number}")
        assert done.exit_code == 1 and name in done.output
        manifest = Manifest.read(tmp_path / f"evil-{number}")
        assert manifest.samples == 1 and "leaves the archive" in manifest.left_out[0].reason
        (tmp_path / "evil.zip").unlink()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("evil-")) == ["deep", "odd.zip"]


def test_no_source_names_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELEBA_ROOT", raising=False)
    done = invoke("celeba", "--out", tmp_path / "out")
    assert done.exit_code == 2
    for words in ("--source", "$CELEBA_ROOT", "data/celeba", "img_align_celeba.zip", "preprocess faces"):
        assert words in done.stderr


def test_the_environment_names_a_source(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELEBA_ROOT", str(tree))
    done = invoke("celeba", "--out", tmp_path / "out", "--limit", 5, "--workers", 1)
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--crop", "big"), "--crop big"),
        (("--crop", "0"), "--crop 0"),
        (("--codec", "bmp"), "'bmp' is not one of"),
        (("--source", "nowhere"), "nowhere does not exist"),
        (("--size", "0"), "--size"),
    ],
)
def test_bad_options_exit_with_2(words: tuple[str, ...], complaint: str, tree: Path, tmp_path: Path) -> None:
    done = shard(tree, tmp_path / "out", *words)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_web_page_named_zip(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba.zip").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    done = shard(tmp_path, tmp_path / "out")
    assert done.exit_code == 2
    assert "web page" in done.stderr


def test_help_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['preprocess', 'celeba', '--help']\n"
        "from preprocess.cli import app\n"
        "try: app()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
