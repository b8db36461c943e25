"""The trainer's view of shards: the manifest and the memory-mapped images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from preprocess.shards.manifest import Manifest, ManifestError
from preprocess.shards.reader import ShardError, ShardSet


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_views_are_read_only_and_share_the_file(shards: Path) -> None:
    shard_set = ShardSet.open(shards)
    shard_set.check_sizes()
    first, second = shard_set.images("train")
    assert first.shape == second.shape == (20, 32, 32, 3)
    assert first.dtype == np.uint8
    assert first.strides[0] == shard_set.manifest.layout.record_bytes
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_annotations_follow_the_records(shards: Path) -> None:
    shard_set = ShardSet.open(shards)
    everything, few = shard_set.annotations("train"), shard_set.annotations("train", limit=23)
    assert len(everything.keys) == 40
    assert few.keys == everything.keys[:23]
    assert np.array_equal(few.attributes, everything.attributes[:23])
    assert everything.factors.shape == (40, 0)


def test_digest_identifies_the_set(shards: Path, copy: Path) -> None:
    digest = ShardSet.open(shards).digest
    assert ShardSet.open(copy).digest == digest
    edit(copy, seed=9)
    assert ShardSet.open(copy).digest != digest


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no finished shards"),
        ("{", "not valid JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 1}', "source"),
    ],
)
def test_bad_manifest_gives_one_sentence(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ManifestError, match=words) as caught:
        Manifest.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_folder_of_a_missing_manifest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"does not exist: \. holds no"):
        Manifest.read(Path())


def test_inconsistent_manifest_is_refused(copy: Path) -> None:
    whole = (copy / "manifest.json").read_text()
    plain = json.loads(whole)
    for change, words in (
        ({"image_shape": [64, 64, 3]}, "layout does not fit"),
        ({"layout": plain["layout"] | {"json_offset": 10**9}}, "do not lie inside"),
        ({"splits": plain["splits"] | {"test": {"samples": 7, "shards": []}}}, "do not add up to 7"),
    ):
        (copy / "manifest.json").write_text(json.dumps(plain | change))
        with pytest.raises(ManifestError, match=words):
            ShardSet.open(copy)


@pytest.mark.parametrize("name", ["../escape.tar", "/etc/passwd", "a/b.tar", "..", "a\\b.tar", ""])
def test_file_names_cannot_leave_the_folder(name: str, copy: Path) -> None:
    plain = json.loads((copy / "manifest.json").read_text())
    plain["splits"]["train"]["shards"][0]["file"] = name
    (copy / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(ManifestError, match="plain file name"):
        ShardSet.open(copy)


def test_a_truncated_shard_is_named(copy: Path) -> None:
    os.truncate(copy / "train-000001.tar", 4096)
    shard_set = ShardSet.open(copy)
    for read in (shard_set.check_sizes, lambda: shard_set.images("train"), lambda: shard_set.annotations("train")):
        with pytest.raises(ShardError, match=r"train-000001.tar is damaged: it has 4,096 bytes.*preprocess verify"):
            read()
    (copy / "train-000001.tar").unlink()
    with pytest.raises(ShardError, match="it is missing"):
        shard_set.check_sizes()


def test_an_unknown_split(shards: Path) -> None:
    with pytest.raises(ShardError, match="no split 'dev'; it has train, valid, test"):
        ShardSet.open(shards).images("dev")
