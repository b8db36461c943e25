"""SIGKILL of ``preprocess`` and of its workers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import processes
from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.folder_hashes import hashes
from tests.launch.runs import exit_code, wait_until
from tests.processes import Process, patience

SHARD_SIZE = 15
WORKERS = 2


@fault(
    "preprocess killed",
    "SIGKILL of a worker, of the parent: the rerun makes only what is missing; bytes equal; no hang",
    Mutation("second try of a dead worker's shard", "preprocess.build.executors:MAX_DEATHS_IN_A_ROW", "is_set_to", "1"),
    Mutation("end of workers with their parent", "preprocess.build.executors:_exit_with_parent", "returns"),
    Mutation("record of each finished shard", "preprocess.build.worker:_write_record", "returns"),
)
def preprocess_killed(workspace: Workspace) -> str:
    """Each moment has a folder of its own: one process is killed there, and the set made whole."""
    whole = workspace.folder / "whole"
    done = workspace.run(*words(workspace, whole))
    assert done.returncode == 0, done.stderr
    expected = hashes(whole)
    chance = random.Random(5)
    moments = 10 if workspace.full else 1
    shards = len(expected) - 1
    kept = 0
    for number in range(moments):
        after = number * (shards - 4) // moments if workspace.full else shards // 2
        out = workspace.folder / f"parent {number}"
        before = kill_parent(workspace, out, after, chance)
        assert all(expected[name] == sha for name, (sha, _) in before.items()), "half a shard under a final name"
        rerun(workspace, out, before, expected)
        kept += len(before)
        kill_worker(workspace, workspace.folder / f"worker {number}", after, chance, expected)
    return (
        f"the parent killed at {moments} moments: {kept} shards were there, of {shards} each, and none was made again; "
        f"a worker killed at {moments}: the same run finished; all bytes those of an undisturbed run"
    )


def words(workspace: Workspace, out: Path) -> list[object]:
    """The command whose processes are killed."""
    options = ["--size", 32, "--shard-size", SHARD_SIZE, "--workers", WORKERS, "--quiet"]
    return ["preprocess", "celeba", "--source", workspace.faces, "--out", out, *options]


def kill_parent(workspace: Workspace, out: Path, after: int, chance: random.Random) -> dict[str, tuple[str, int]]:
    """Kills the command once so many shards are there. The shards that it leaves: SHA-256 and time of change."""
    with started(workspace, out, after, chance) as (parent, _):
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        assert not psutil.wait_procs(family, timeout=patience(10))[1], "a worker outlived the command by 10 s"
        assert parent.wait() == -signal.SIGKILL, "the command ended before it was killed"
    found = hashes(out) if out.exists() else {}
    return {name: (sha, (out / name).stat().st_mtime_ns) for name, sha in found.items() if name.endswith(".tar")}


def kill_worker(workspace: Workspace, out: Path, after: int, chance: random.Random, expected: dict[str, str]) -> None:
    """Kills one worker once so many shards are there; the command itself must make the set whole."""
    with started(workspace, out, max(1, after), chance) as (parent, log):
        workers = [w for server in psutil.Process(parent.pid).children() for w in server.children()]
        assert workers, "no worker was found to kill"
        os.kill(workers[0].pid, signal.SIGKILL)
        assert exit_code(parent) == 0, f"a dead worker ended the command: {log.read_text()}"
    assert hashes(out) == expected, "other bytes after a worker died"


@contextmanager
def started(workspace: Workspace, out: Path, count: int, chance: random.Random) -> Iterator[tuple[Process, Path]]:
    """The command and its log once so many shards are there, and a moment later; none: a moment of the start."""
    log = workspace.folder / f"{out.name}.log"
    parent = processes.start(words(workspace, out), workspace.environment(), log, log, fork=False)
    with processes.no_survivors([parent]):
        time.sleep(chance.uniform(0.1, 1.5) if not count else 0)
        wait_until(lambda: len(list(out.glob("*.tar"))) >= count, f"{count} shards", parent)
        time.sleep(chance.uniform(0, 0.02))
        yield parent, log


def rerun(workspace: Workspace, out: Path, before: dict[str, tuple[str, int]], expected: dict[str, str]) -> None:
    """The same command again: it makes what is missing, and no shard that was there."""
    done = workspace.run(*words(workspace, out))
    assert done.returncode == 0, done.stderr
    assert hashes(out) == expected, "other bytes, or other files, after the parent was killed"
    assert not list(out.glob(".*")), "leftovers of the killed run"
    remade = [name for name, (_, stamp) in before.items() if (out / name).stat().st_mtime_ns != stamp]
    assert not remade, f"{len(remade)} of {len(before)} finished shards were made again"
