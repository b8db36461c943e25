"""The output without a terminal, and with --quiet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from preprocess import progress as terminal
from tests.preprocess.trees import shard, write_tree


def test_plain_lines_with_rate_bytes_and_images_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write_tree(tmp_path / "tree", 20)
    (tree / "img_align_celeba" / "000002.jpg").write_bytes(b"")
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    done = shard(tree, tmp_path / "out", "--max-bad", 1, shard_size=5)
    assert done.exit_code == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("celeba: ")]
    assert len(lines) == 7  # six shards, and the end
    assert all(re.search(r"^celeba: \d+ of 20, [\d,]+/s, .* s left$", line) for line in lines[:-1])
    assert re.search(r"^celeba: 20 in [\d.]+ s, [\d,]+/s, \d+ MB, 1 left out$", lines[-1])
    assert "\x1b" not in done.stderr
    assert "000002: empty file" in done.stdout


def test_quiet_prints_only_the_summary(tree: Path, tmp_path: Path) -> None:
    done = shard(tree, tmp_path / "out", "--quiet")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "train" in done.stdout
