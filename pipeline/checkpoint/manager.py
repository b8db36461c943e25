"""When checkpoints are made during training: by steps, by minutes, and whenever validation has never been better."""

from __future__ import annotations

import math
import time
from pathlib import Path

from pipeline.checkpoint.writer import CheckpointWriter
from pipeline.run.run_dir import best_so_far
from pipeline.training.state import Run, checkpoint_state


class Saver:
    """When a checkpoint is due, and its writing, on the main process; nothing on the others."""

    def __init__(self, run: Run, out: Path) -> None:
        self._writer = CheckpointWriter(out, run.config.training.keep_checkpoints) if run.is_main else None
        self._best = best_so_far(out) if run.is_main else math.inf
        self._saved_at = time.monotonic()
        self.step = run.step

    def is_due(self, run: Run, valid_l1: float | None) -> bool:
        """After a step: by steps, by minutes, or because validation has never been better."""
        minutes, every = run.config.training.checkpoint_every_minutes, run.config.training.checkpoint_every_steps
        late = minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes
        better = valid_l1 is not None and valid_l1 < self._best
        return late or better or (every > 0 and run.step % every == 0)

    def save(self, run: Run, valid_l1: float | None) -> None:
        """Copies the state; the file is written while training goes on. Raises OSError when the last one failed."""
        is_best = valid_l1 is not None and valid_l1 < self._best
        if self._writer is not None:
            self._writer.save(checkpoint_state(run), is_best)
        if is_best and valid_l1 is not None:
            self._best = valid_l1
        self._saved_at, self.step = time.monotonic(), run.step

    def finish(self) -> None:
        """Until the last checkpoint is on the disk. Raises OSError."""
        if self._writer is not None:
            self._writer.wait()
