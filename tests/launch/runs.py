"""Starting the real trainer in the background, watching it, and finding its ranks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.processes import BIN, REPOSITORY, Process

PATIENCE_S = 120


def trainer_words(shards: Path, out: Path, *overrides: str, steps: int = 10, batch: int = 24) -> list[str]:
    """The words after ``pipeline/train.py`` for a small run on the CPU."""
    options = ["--data", str(shards), "--out", str(out), "--steps", str(steps), "--global-batch-size", str(batch)]
    options += ["--recipe", str(REPOSITORY / "tests/pipeline/small.yaml")]
    return [*options, *overrides]


def start(words: list[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a program of this environment in a session of its own, all it says going to ``log``."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        return subprocess.Popen(
            words,
            cwd=REPOSITORY,
            env={**environment, "CUDA_VISIBLE_DEVICES": "", **(env or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def wait_until(happened: Callable[[], bool], what: str, process: subprocess.Popen[str] | Process | None = None) -> None:
    """Polls ``happened``; fails when it does not come, or when ``process`` has ended before it came."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if happened():
            return
        assert process is None or process.poll() is None, f"the process ended before this: {what}"
        time.sleep(0.01)
    raise AssertionError(f"did not come in {PATIENCE_S} s: {what}")


def logged_step(out: Path) -> int:
    """The last step in a run's metrics.jsonl; -1 before the first. A line that is being written does not count."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return json.loads(lines[-1])["step"] if lines else -1


def ranks_of(run: Path) -> dict[int, int]:
    """{rank: process id} of the living trainers that write into ``run`` (Linux)."""
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [entry for entry in environment if entry.startswith(b"RANK=")]
        if ranks and b"pipeline/train.py" in words and str(run).encode() in words:
            found[int(ranks[0].removeprefix(b"RANK="))] = int(folder.name)
    return found
