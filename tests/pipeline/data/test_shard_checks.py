"""Shards that cannot be used are named with their true reason, by the trainer and by analysis."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis.inputs.context import open_shards
from pipeline.config.schema import DataConfig
from pipeline.data.shard_checks import usable_shards
from pipeline.data.shard_reader import open_source
from preprocess.errors import ShardError


@pytest.fixture
def shards(face_shards, tmp_path) -> Path:
    return Path(shutil.copytree(face_shards, tmp_path / "shards"))


def test_a_shard_without_read_permission_is_not_called_damaged(shards, monkeypatch):
    open_file = Path.open

    def refuse(path: Path, *words, **options):
        if path.name == "train-000001.tar":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *words, **options)

    monkeypatch.setattr(Path, "open", refuse)
    source = open_source(str(shards), False)
    assert source.local is not None
    for check in (source.local.check_sizes, lambda: usable_shards(source, DataConfig(), 0, 1)):
        with pytest.raises(ShardError, match=r"train-000001.tar: .*Permission denied.*chmod") as failed:
            check()
        assert "is damaged" not in str(failed.value) and "data.damaged" not in str(failed.value)


def test_analysis_leaves_out_the_damaged_shards_that_training_left_out(shards):
    (shards / "train-000001.tar").write_bytes(b"cut")
    source, lines = usable_shards(open_source(str(shards), False), DataConfig(damaged="skip"), 0, 1)
    assert "left out train-000001.tar (100 images)" in lines[0]
    assert source.local is not None
    state = {"image_shape": (3, 32, 32), "manifest_digest": source.digest, "left_out": list(source.left_out)}
    opened, note = open_shards(state, shards)
    opened.check_sizes()
    assert opened.manifest == source.local.manifest
    assert note is not None and "train-000001.tar" in note
    for file in shards.glob("train-*.tar"):
        file.unlink()
    with pytest.raises(ShardError, match="every train shard"):
        usable_shards(open_source(str(shards), False), DataConfig(damaged="skip"), 0, 1)
