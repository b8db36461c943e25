"""Training runs of the drills: the real launcher on two CPU processes, watched from outside."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import psutil

from tests.drills.drill import Ground
from tests.pipeline.training import SMALL, launch_words, wait_for_step

__all__ = ["by_hand", "checkpoint_steps", "ends_within", "errors_of", "ranks_of", "wait_for_step", "words"]

SETTINGS = ("optimizer.schedule=constant", "training.log_every_steps=1")


def words(ground: Ground, out: Path, *overrides: str, processes: int = 2, steps: int = 2000) -> list[str]:
    """The words of a run's command; long enough to be disturbed."""
    return launch_words(ground.shards, out, *SETTINGS, *overrides, processes=processes, steps=steps)


def by_hand(ground: Ground, out: Path, *overrides: str, data: Path | None = None, steps: int = 10) -> list[str]:
    """The words of one rank that no launcher starts; its place comes from the environment."""
    options = ["--data", str(data or ground.shards), "--out", str(out), "--steps", str(steps)]
    options += ["--global-batch-size", "24", "--mixed-precision", "no", "--recipe", "launch/recipes/demo.yaml"]
    return ["python", "pipeline/train.py", *options, *SMALL, *SETTINGS, *overrides]


def ranks_of(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """The launcher's ranks, in the order of their numbers."""
    found = [p for p in psutil.Process(launcher.pid).children(recursive=True) if "pipeline/train.py" in p.cmdline()]
    return sorted(found, key=lambda process: int(process.environ()["RANK"]))


def wait_for_ranks(launcher: subprocess.Popen[str], count: int = 2) -> list[psutil.Process]:
    """Until the launcher has started ``count`` ranks."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if len(found := ranks_of(launcher)) == count:
                return found
        except (psutil.Error, KeyError):
            pass  # one was just being started
        time.sleep(0.005)
    raise AssertionError("the ranks were not started")


def ends_within(process: subprocess.Popen[str], seconds: float) -> tuple[float, str]:
    """How long the process took to end, and what it had said on stderr. Kills nothing."""
    began = time.monotonic()
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"not ended after {seconds:.0f} s") from None
    return time.monotonic() - began, errors


def errors_of(text: str) -> list[str]:
    """The lines in which the trainer says why it stops, without the name of the rank that says it."""
    return [line for line in text.splitlines() if re.match(r"(\[rank \d+\] )?error: ", line)]


def checkpoint_steps(out: Path) -> list[int]:
    """Steps of the checkpoints under ``out``, oldest first."""
    return sorted(int(path.stem.split("-")[1]) for path in (out / "checkpoints").glob("step-*.pt"))


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What a launcher tells one rank."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return {**os.environ, **{key: str(value) for key, value in {**place, **address}.items()}}
