"""The folder of one run: its lock, its resolved configuration, its metrics."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pipeline.checkpoint.file import replacing
from pipeline.config.schema import Config, flatten, to_yaml

METRICS = "metrics.jsonl"

_MAY_CHANGE = {
    "name",
    "data.path",
    "data.damaged",
    "data.mode",
    "data.verify",
    "data.prefetch_batches",
    "training.steps",
    "training.trackers",
}
_MAY_CHANGE |= {
    f"training.{key}"
    for key in (
        "log_every_steps",
        "validate_every_steps",
        "validation_samples",
        "preview_every_steps",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "compile",
        "keep_checkpoints",
        "max_non_finite_steps",
        "collective_timeout_seconds",
    )
}
"""What a resumed run may change: nothing that the finished steps depended on."""


class RunFolderError(RuntimeError):
    """The folder cannot be used; the message is one sentence for the terminal."""


def lock_folder(folder: Path) -> IO[str]:
    """Takes the folder for this run until the returned file is closed or the process ends, however it ends.

    Raises RunFolderError when a living run has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise RunFolderError(f"cannot write into {folder} ({error.strerror}); choose another --out") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RunFolderError(f"another run is training into {folder}; choose another --out") from None
    return lock


def differences(saved: Config, asked: Config) -> list[str]:
    """``key: saved → asked`` for each key that a resumed run must not change."""
    before, after = dict(flatten(saved.plain())), dict(flatten(asked.plain()))
    return [
        f"{key}: {before.get(key)} → {after[key]}"
        for key in after
        if key not in _MAY_CHANGE and before.get(key) != after[key]
    ]


def write_config(folder: Path, config: Config) -> None:
    """Saves the resolved configuration as config.yaml, atomically."""
    with replacing(folder / "config.yaml") as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


class MetricsLog:
    """metrics.jsonl: one JSON object a line, steps never doubled across resumes."""

    def __init__(self, folder: Path, step: int, show: Callable[[dict[str, Any]], None]) -> None:
        """Opens the log of a run that goes on at ``step``: later lines of a killed run are dropped.

        Each line is given to ``show`` as well.
        """
        self._path, self._show = folder / METRICS, show
        kept = [json.dumps(line) + "\n" for line in read_metrics(folder) if line["step"] <= step]
        with replacing(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")

    def append(self, line: dict[str, Any]) -> None:
        """Adds one line; it must have a ``step``."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._show(line)

    def close(self) -> None:
        """Makes the log durable."""
        os.fsync(self._file.fileno())
        self._file.close()


def best_so_far(folder: Path) -> float:
    """The lowest validation L1 in a run's log; infinity when there is none."""
    return min((line["valid"]["l1"] for line in read_metrics(folder) if "valid" in line), default=math.inf)


def last_logged_step(folder: Path) -> int:
    """The highest step in a run's log; 0 when there is none."""
    return max((line["step"] for line in read_metrics(folder)), default=0)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; a last line cut by a kill is left out. [] when there is no log."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines
