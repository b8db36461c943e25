"""The folder of one run: its lock, its resolved recipe, and its metrics."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from pipeline.config.load import to_yaml
from pipeline.config.schema import Config
from preprocess.errors import UserError
from preprocess.shards.atomic import write_file

METRICS = "metrics.jsonl"


class RunFolderError(UserError):
    """The folder of a run cannot be used."""


def lock_folder(folder: Path) -> FileLock:
    """Locks the folder for this run until the lock is released or the process ends.

    Raises:
        RunFolderError: When another run holds the lock, or the folder cannot be written.
    """
    if folder.is_symlink() and not folder.exists():
        raise RunFolderError(f"{folder} is a link to {folder.readlink()}, which does not exist; make that folder")
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"another run is training into {folder}; choose another --out") from None
    except (OSError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunFolderError(f"cannot write into {folder} ({reason}); choose another --out") from None
    return lock


def write_config(folder: Path, config: Config) -> None:
    """Saves the resolved recipe as config.yaml, atomically."""
    write_file(folder / "config.yaml", to_yaml(config).encode())


class MetricsLog:
    """metrics.jsonl: one JSON object per line; no step appears twice after a resume."""

    def __init__(
        self,
        folder: Path,
        kept: Sequence[dict[str, Any]],
        show: Callable[[dict[str, Any]], None],
        show_pictures: Callable[[int, dict[str, Image.Image]], None] = lambda *_: None,
    ) -> None:
        """Opens the log.

        Args:
            folder: The run's folder.
            kept: The lines up to the step that the run continues from; others are dropped.
            show: Called with every new line.
            show_pictures: Called with the step and the pictures of every preview.
        """
        self._show, self.show_pictures = show, show_pictures
        write_file(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = (folder / METRICS).open("a", encoding="utf-8")

    def append(self, line: dict[str, Any]) -> None:
        """Adds one line; it must have a ``step``. Numbers that are not finite become null."""
        line = without_nan(line)
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._show(line)

    def close(self) -> None:
        """Syncs the log to the disk and closes it."""
        os.fsync(self._file.fileno())
        self._file.close()


def without_nan(value: Any) -> Any:
    """The same plain values with None for numbers that are not finite: JSON has none."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl, without a last line cut by a kill; [] if there is no log."""
    path, lines = folder / METRICS, []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines
