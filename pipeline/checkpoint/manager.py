"""When checkpoints are made during training: by steps, by minutes, and whenever validation has never been better."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch

from pipeline.checkpoint.file import SCHEMA_VERSION
from pipeline.checkpoint.writer import CheckpointWriter
from pipeline.run.run_dir import best_so_far
from pipeline.run.state import Run


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


def checkpoint_state(run: Run) -> dict[str, Any]:
    """The checkpoint's contents (docs/formats.md): plain values and tensors only."""
    scaler = run.accelerator.scaler
    step = run.step
    return {
        "schema_version": SCHEMA_VERSION,
        "config": run.config.plain(),
        "image_shape": list(run.model.vlae.image_shape),
        "model": run.model.vlae.state_dict(),
        "ema": run.model.average.module.state_dict() if run.config.training.ema_images else None,
        "optimizer": run.model.optimizer.state_dict(),
        # the schedule is a function of the step, kept for readers of the file
        "scheduler": {
            "learning_rate": run.model.optimizer.param_groups[0]["lr"],
            "steps": run.config.training.steps,
        },
        "scaler": scaler.state_dict() if scaler is not None else None,
        "progress": {
            "epoch": run.data.sampler.epoch_of(step),
            "step": step,
            "samples": step * run.config.training.global_batch_size,
        },
        # all noise of training is keyed by (seed, step); this is torch's own generator, for whoever uses it
        "rng": {"torch": torch.get_rng_state()},
        "manifest_digest": run.data.source.digest,
        "left_out": list(run.data.source.left_out),
        "data": run.data.source.address,
        "order": run.sample_order,
        "attribute_names": list(run.data.source.manifest.attribute_names),
        "factor_names": list(run.data.source.manifest.factor_names),
        "versions": {
            "torch": str(torch.__version__),
            "accelerate": str(accelerate.__version__),
            "numpy": str(np.__version__),
        },
    }
