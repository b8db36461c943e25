"""Starting the real trainer in the background, watching it, and finding its ranks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests import processes
from tests.processes import REPOSITORY, Process

LONGEST_S = 120.0
TRAINER = "pipeline/train.py"


def trainer_words(shards: Path | str, out: Path, *overrides: str, steps: int = 10, batch: int = 24) -> list[str]:
    """The words after ``pipeline/train.py`` for a small run on the CPU."""
    options = ["--data", str(shards), "--out", str(out), "--steps", str(steps), "--global-batch-size", str(batch)]
    options += ["--recipe", str(REPOSITORY / "tests/pipeline/small.yaml")]
    return [*options, *overrides]


def start(words: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Starts a program in a session of its own; all it says is added to ``log``."""
    return processes.start(words, processes.environment(env), log, log)


def wait_until(happened: Callable[[], bool], what: str, process: Process | None = None) -> None:
    """Polls ``happened``; fails when it does not come, or when ``process`` has ended before it came."""
    deadline = time.monotonic() + processes.patience(LONGEST_S)
    while time.monotonic() < deadline:
        if happened():
            return
        assert process is None or process.poll() is None, f"the process ended before this: {what}"
        time.sleep(0.01)
    raise AssertionError(f"did not come in {LONGEST_S:g} s: {what}")


def exit_code(process: Process) -> int:
    """Waits for the end of a process."""
    return process.wait(processes.patience(LONGEST_S))


def logged(out: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl; a line that is being written does not count."""
    path = out / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def logged_step(out: Path) -> int:
    """The last step in a run's metrics.jsonl; -1 before the first."""
    return next((line["step"] for line in reversed(logged(out))), -1)


def logged_steps(out: Path) -> list[int]:
    """The training steps in a run's metrics.jsonl, in its order."""
    return [line["step"] for line in logged(out) if "loss" in line]


def ranks_of(out: Path) -> dict[int, psutil.Process]:
    """The living trainers that a launcher started and that write into ``out``, by rank."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if str(out) in words and TRAINER in words and all(w[0] == "-" for w in words[1 : words.index(TRAINER)]):
                found[int(process.environ().get("RANK", "0"))] = process
        except psutil.Error:
            continue
    return found
