"""Decides when a checkpoint is due, writes it while training continues, and finds the newest valid one."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch

from pipeline.checkpoint.file import SCHEMA_VERSION, CheckpointError, read_checkpoint, write_checkpoint
from pipeline.checkpoint.folder import checkpoint_files
from pipeline.config.schema import TrainingConfig
from pipeline.run.state import Run


def checkpoint_state(run: Run) -> dict[str, Any]:
    """Returns the contents of a checkpoint (docs/formats.md): plain values and tensors only."""
    scaler, source, manifest = run.accelerator.scaler, run.data.source, run.data.source.manifest
    device = run.accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({os.cpu_count()} cores)"
    return {
        "schema_version": SCHEMA_VERSION,
        "config": run.config.plain(),
        "image_shape": list(run.model.vlae.image_shape),
        "image_processing": {
            "crop": manifest.crop.model_dump(mode="json"),
            "resample": manifest.resample,
            "image_shape": list(manifest.image_shape),
            "source_size": list(manifest.source_size) if manifest.source_size else None,
        },
        "model": run.model.vlae.state_dict(),
        "ema": run.model.average.module.state_dict() if run.config.training.ema_images else None,
        "optimizer": run.model.optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "progress": {
            "epoch": run.data.sampler.epoch_of(run.step),
            "step": run.step,
            "samples": run.step * run.config.training.global_batch_size,
            "growth_steps": run.growth_steps,
            "seconds": run.seconds,
        },
        "resumed_from": run.resumed_from,
        "manifest_digest": source.digest,
        "left_out": list(source.left_out),
        "data": source.address,
        "order": run.sample_order,
        "attribute_names": list(manifest.attribute_names),
        "factor_names": list(manifest.factor_names),
        "versions": {module.__name__: str(module.__version__) for module in (torch, accelerate, np)},
        "hardware": f"{run.accelerator.num_processes} x {name}",  # such as 4 x NVIDIA H100 80GB HBM3
    }


def snapshot(value: Any) -> Any:
    """Returns a copy of nested plain values with every tensor copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(inner) for inner in value)
    return value


def has_finite_weights(state: dict[str, Any]) -> bool:
    """Whether the weights of a checkpoint, and their average, are all finite."""
    tensors = [*state["model"].values(), *(state.get("ema") or {}).values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class CheckpointManager:
    """Writes the checkpoints of a run, one at a time, in a thread. Only the main process has one."""

    def __init__(self, folder: Path, training: TrainingConfig, best: float = math.inf) -> None:
        """Starts without a checkpoint to write.

        Args:
            folder: The run's folder.
            training: Sets the intervals and the number of checkpoints kept.
            best: The lowest validation L1 so far.
        """
        self._folder, self._training, self._best = folder, training, best
        self._saved_at = time.monotonic()
        self.postponed = False
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Path] | None = None

    def _is_best(self, valid_l1: float | None) -> bool:
        return valid_l1 is not None and valid_l1 < self._best

    def is_due(self, step: int, valid_l1: float | None) -> bool:
        """Whether to save after ``step``: by steps, by minutes, or because the validation L1 is the lowest so far."""
        minutes, every = self._training.checkpoint_every_minutes, self._training.checkpoint_every_steps
        late = minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes
        return self.postponed or late or self._is_best(valid_l1) or (every > 0 and step % every == 0)

    def postpone(self) -> None:
        """Makes a checkpoint due after every step until one is saved, because this step was not finite."""
        self.postponed = True

    def save(self, state: dict[str, Any], valid_l1: float | None = None) -> bool:
        """Copies the state and writes the copy while training continues.

        Args:
            state: Of `checkpoint_state`.
            valid_l1: Of the validation after this step, if there was one.

        Returns:
            False if the weights are not finite: then nothing is written and the older checkpoints remain.

        Raises:
            OSError: When the previous checkpoint could not be written.
        """
        self.wait()
        state = snapshot(state)
        self.postponed = not has_finite_weights(state)
        if self.postponed:
            return False
        is_best = self._is_best(valid_l1)
        if is_best and valid_l1 is not None:
            self._best = valid_l1
        state["progress"]["best_l1"] = self._best
        keep = self._training.keep_checkpoints
        self._writing = self._thread.submit(write_checkpoint, self._folder, state, keep, is_best)
        self._saved_at = time.monotonic()
        return True

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
            OSError: When it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def newest_valid(folder: Path) -> tuple[Path, dict[str, Any], dict[Path, str]] | None:
    """Finds a run's newest checkpoint that is not damaged.

    Returns:
        Its path, its contents, and the reason why each newer one cannot be used; None if there is no checkpoint.

    Raises:
        CheckpointError: When there are checkpoints, but all are damaged.
    """
    damaged: dict[Path, str] = {}
    for path in checkpoint_files(folder):
        try:
            return path, read_checkpoint(path), damaged
        except CheckpointError as error:
            damaged[path] = str(error)
    if damaged:
        reason = next(iter(damaged.values()))
        raise CheckpointError(f"all checkpoints in {folder} are damaged: {reason}; train into another --out")
    return None
