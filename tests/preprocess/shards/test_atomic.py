"""A file is replaced completely or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from preprocess.shards.atomic import replace_file, write_file, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with pytest.raises(OSError, match="No space left") as caught, replace_file(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert caught.value.filename == str(path)


def test_a_write_replaces_what_a_kill_left(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"from a run that was killed")
    write_json(tmp_path / "file", {"a": [1]})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == '{\n "a": [\n  1\n ]\n}\n'
