"""A Dask cluster makes the same shards as local processes (skipped without Dask)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from preprocess.build import executors
from tests.preprocess.trees import command, hashes, shard


def processes_of(session: int) -> list[int]:
    """Returns the running processes of a session (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_unknown_scheduler_is_a_usage_error(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = shard(tree, tmp_path / "out", "--scheduler", "my cluster")
    assert done.exit_code == 2
    assert "--scheduler my cluster" in done.stderr
    monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: None)
    done = shard(tree, tmp_path / "out", "--scheduler", "tcp://localhost:1")
    assert done.exit_code == 2
    assert "pip install 'mmd-vlae[dask]'" in done.stderr


def test_dead_dask_worker_loses_only_its_shard(tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    assert shard(tree, tmp_path / "whole", shard_size=1).exit_code == 0
    out = tmp_path / "out"
    process = command(tree, out, "--shard-size", 1, "--scheduler", "local-cluster")
    while len(list(out.glob("*.tar"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    workers = [pid for pid in processes_of(process.pid) if b"spawn_main" in cmdline(pid)]
    assert len(workers) >= 2
    os.kill(max(workers), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert hashes(out) == hashes(tmp_path / "whole")


def test_missing_cluster_gives_one_sentence(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "_SECONDS_TO_CONNECT", 1)
    done = shard(tree, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
