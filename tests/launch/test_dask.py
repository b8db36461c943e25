"""Preprocessing on a Dask cluster that loses a worker in mid-run: the bytes of one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import run_command
from tests.launch.runs import exit_code, start, wait_until
from tests.preprocess.trees import hashes
from tests.processes import free_port

SMALL = ("--size", "32", "--shard-size", "4")


def test_a_worker_killed_in_mid_run_changes_no_byte(faces_tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    words = ["preprocess", "celeba", "--source", str(faces_tree), *SMALL]
    address = f"tcp://127.0.0.1:{free_port()}"
    out, log = tmp_path / "out", tmp_path / "log"
    cluster = [start(["dask", "scheduler", "--no-dashboard", "--host", address], log)]
    try:
        wait_until(lambda: "Scheduler at" in log.read_text(), "the scheduler", cluster[0])
        for number in range(2):
            local = tmp_path / f"worker-{number}"
            worker = ["dask", "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(local)]
            cluster.append(start(worker, log))
        wait_until(lambda: log.read_text().count("Registered to") >= 2, "two workers", cluster[0])
        command = start([*words, "--out", str(out), "--scheduler", address, "--workers", "2"], tmp_path / "said")
        wait_until(lambda: len(list(out.glob("*.tar"))) >= 2, "two shards", command)
        os.killpg(cluster[1].pid, signal.SIGKILL)  # the worker and the nanny that would start it again
        assert not (out / "manifest.json").exists(), "the run had ended before the worker was killed"
        assert exit_code(command) == 0, (tmp_path / "said").read_text()
    finally:
        for process in cluster:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    alone = run_command(*words, "--out", tmp_path / "alone", "--workers", 1)
    assert alone.returncode == 0, alone.stderr
    assert hashes(out) == hashes(tmp_path / "alone")
