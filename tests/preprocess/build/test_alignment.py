from __future__ import annotations

import hashlib
import importlib.util

import numpy as np
import pytest
from PIL import Image

from preprocess.build.worker import face_samples
from preprocess.images.align import is_installed
from preprocess.shards.manifest import Manifest
from preprocess.shards.reader import ShardSet
from tests.photographs import ground, photographs, placed
from tests.preprocess.trees import invoke

needs_aligner = pytest.mark.skipif(not is_installed(), reason="needs the extra align")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures: one face, two faces, none, and a damaged file."""
    folder = tmp_path_factory.mktemp("photographs")
    first, second = photographs(2)
    one, _ = placed(first, 2.5, 20, (300, 200), ground(450, 600))
    two, _ = placed(second, 3, -10, (620, 300), placed(first, 1.5, 0, (150, 150), ground(600, 900))[0])
    for name, picture in (("one", one), ("two", two), ("none", ground(300, 400))):
        Image.fromarray(picture).save(folder / f"{name}.png")
    (folder / "damaged.png").write_bytes((folder / "one.png").read_bytes()[:2000])
    return folder


def build(folder, out, *words):
    options = ("--size", 32, "--workers", 1, "--max-bad", 0.5, "--quiet")
    return invoke("images", folder, "--out", out, *options, *words)


def shard_hashes(out):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tar"))}


@needs_aligner
def test_pictures_without_a_face_are_left_out_and_counted(folder, tmp_path):
    done = build(folder, tmp_path / "a", "--align")
    assert done.exit_code == 0, done.output
    manifest = Manifest.read(tmp_path / "a")
    assert manifest.samples == 2
    assert {left.key: left.reason for left in manifest.left_out}["none"] == "no face was found"
    assert {left.key for left in manifest.left_out} == {"none", "damaged"}
    assert "none: no face was found" in done.stdout
    assert manifest.source_size == (218, 178)
    assert (manifest.align, manifest.crop.size) == ("largest", 148)
    build(folder, tmp_path / "b", "--align")
    assert shard_hashes(tmp_path / "a") == shard_hashes(tmp_path / "b")


@needs_aligner
def test_all_faces_become_samples_with_keys_of_their_own(folder, tmp_path):
    done = build(folder, tmp_path, "--align", "--faces", "all")
    assert done.exit_code == 0, done.output
    shards = ShardSet.open(tmp_path)
    keys = [key for split in shards.manifest.splits for key in shards.annotations(split, 10).keys]
    assert sorted(keys) == ["one", "two", "two+2"]
    assert invoke("verify", tmp_path).exit_code == 0


@needs_aligner
def test_photographs_without_a_face_do_not_count_as_bad(folder, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("one", "none"):
        (tmp_path / "in" / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    done = invoke("images", tmp_path / "in", "--out", tmp_path / "out", "--align", "--workers", 1, "--quiet")
    assert done.exit_code == 0, done.output


@needs_aligner
def test_shards_of_aligned_faces_are_not_those_of_the_pictures(folder, tmp_path):
    assert build(folder, tmp_path).exit_code == 0
    done = build(folder, tmp_path, "--align")
    assert done.exit_code == 2
    assert "align" in done.stderr


def test_faces_without_align_is_refused(folder, tmp_path):
    done = build(folder, tmp_path, "--faces", "all")
    assert done.exit_code == 2
    assert "--align" in done.stderr


def test_align_without_the_library_names_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = build(folder, tmp_path, "--align")
    assert done.exit_code == 2
    assert "pip install 'mmd-vlae[align]'" in done.stderr


def test_picture_stays_as_it_is_without_align():
    image = np.zeros((4, 4, 3), np.uint8)
    assert list(face_samples("k", b"{}", image, None)) == [("k", b"{}", image)]
