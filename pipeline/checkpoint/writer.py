"""Checkpoints written behind the training's back: a step waits for the copy of the state, not for the disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.file import write_checkpoint


def snapshot(value: Any) -> Any:
    """A copy of nested plain values with every tensor on the CPU, sharing no memory with the original."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(inner) for inner in value)
    return value


class CheckpointWriter:
    """Writes one checkpoint at a time, in a thread. An error is raised by the next call."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def save(self, state: dict[str, Any], is_best: bool = False) -> None:
        """Copies ``state`` and writes it while training goes on. Raises OSError when the one before failed."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot(state), is_best), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until the last checkpoint is on the disk. Raises OSError when it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, state: dict[str, Any], is_best: bool) -> None:
        try:
            write_checkpoint(self._folder, state, self._keep, is_best)
        except OSError as error:
            self._error = error
