"""`preprocess verify` names each damaged, missing or foreign file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.preprocess.trees import invoke


def test_verify_names_each_problem(shards: Path, tmp_path: Path) -> None:
    assert invoke("verify", shards).exit_code == 0
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    flipped = bytearray((out / "train-000000.tar").read_bytes())
    flipped[9000] ^= 1
    (out / "train-000000.tar").write_bytes(flipped)
    os.truncate(out / "train-000001.tar", 5120)
    (out / "valid-000000.tar").unlink()
    (out / "holiday.jpg").write_bytes(b"")
    done = invoke("verify", out)
    assert done.exit_code == 1
    for words in (
        "train-000000.tar: its content has changed",
        "train-000001.tar: it has 5,120 bytes",
        "valid-000000.tar: it is missing",
        "holiday.jpg: not part of this set",
    ):
        assert words in done.stderr
    assert "test-000000.tar" not in done.stderr


def test_verify_needs_finished_shards(tmp_path: Path) -> None:
    assert invoke("verify", tmp_path / "nowhere").exit_code == 2
    done = invoke("verify", tmp_path)
    assert done.exit_code == 1
    assert "holds no finished shards" in done.stderr
