"""SIGKILL of preprocessing and of its workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.drills.drill import Ground, Removal, drill
from tests.preprocess.trees import hashes

PATIENCE_S = 120


def _words(ground: Ground, out: Path) -> list[object]:
    small = ["--size", 32, "--shard-size", 10, "--workers", 2]
    return ["preprocess", "celeba", "--source", ground.faces, "--out", out, *small]


@drill(
    "preprocessing killed",
    "SIGKILL of a worker, of the parent, in preprocessing: the rerun makes only what is missing; bytes equal those of "
    "an uninterrupted run; no hang when a worker dies, no worker outlives the parent",
    Removal(
        "a dead worker's shard is made by another",
        "preprocess/engine.py",
        "            deaths += 1\n            if deaths == MAX_DEATHS_IN_A_ROW:",
        "            if deaths == deaths:",
    ),
    Removal(
        "finished shards are remembered",
        "preprocess/build.py",
        "                    folder.record(record)\n",
        "",
    ),
    Removal(
        "workers leave with their parent",
        "preprocess/engine.py",
        "        parent.join()\n        os._exit(1)",
        "        parent.join()",
    ),
)
def preprocessing_killed(ground: Ground) -> str:
    """Kills the parent at random moments of one build, and workers in another."""
    whole = ground.folder / "whole"
    done = ground.run(*_words(ground, whole))
    assert done.returncode == 0, done.stderr
    moments = 10 if ground.full else 3
    kept, remade = _kill_parents(ground, whole, moments)
    deaths = _kill_workers(ground, whole, moments)
    return (
        f"{moments} parents and {deaths} workers killed; {kept} finished shards kept, {remade} made twice; bytes equal"
    )


def _kill_parents(ground: Ground, whole: Path, moments: int) -> tuple[int, int]:
    """How many shards were kept over all kills, and how many made again though they were there."""
    chance = random.Random(5)
    out = ground.folder / "parent"
    kept = remade = 0
    stamps: dict[str, int] = {}
    for moment in range(moments):
        with ground.started(*_words(ground, out)) as process:
            _until_more(len(stamps), out, process)
            assert process.poll() is None, f"it ended before it could be killed: {process.communicate()[1]}"
            time.sleep(chance.uniform(0, 0.05))
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            alive = psutil.wait_procs(children, timeout=10)[1]
            assert not alive, f"kill {moment}: {len(alive)} workers outlive the command"
        before, stamps = stamps, _shards(out)
        remade += sum(stamps[name] != stamp for name, stamp in before.items())
        kept += sum(stamps[name] == stamp for name, stamp in before.items())
        assert not (out / "manifest.json").exists(), "a manifest before the end"
    done = ground.run(*_words(ground, out))
    assert done.returncode == 0, done.stderr
    remade += sum(_shards(out)[name] != stamp for name, stamp in stamps.items())
    assert remade <= 4 * moments, (
        f"{remade} finished shards were made again in {moments + 1} runs"
    )  # in flight: 2 a worker
    assert hashes(out) == hashes(whole), "not the bytes of an uninterrupted run"
    return kept, remade


def _kill_workers(ground: Ground, whole: Path, moments: int) -> int:
    """Kills a worker now and then; how many died."""
    out = ground.folder / "worker"
    killed = 0
    with ground.started(*_words(ground, out)) as process:
        seen = 0
        while killed < moments and process.poll() is None:
            _until_more(seen, out, process)
            seen = len(_shards(out)) + 2  # two more shards at least between two deaths
            if (worker := _worker(process.pid)) is not None:
                os.kill(worker, signal.SIGKILL)
                killed += 1
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    assert hashes(out) == hashes(whole), "not the bytes of an uninterrupted run"
    assert killed, "no worker was seen"
    return killed


def _worker(parent: int) -> int | None:
    """A process that makes shards: a child of the server that workers are forked from."""
    servers = [p for p in psutil.Process(parent).children() if "forkserver" in " ".join(p.cmdline())]
    workers = [worker.pid for server in servers for worker in server.children()]
    return max(workers, default=None)


def _shards(out: Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


def _until_more(count: int, out: Path, process: subprocess.Popen[str]) -> None:
    """Until more than so many shards are there, or the command has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while len(_shards(out)) <= count and process.poll() is None:
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.002)
