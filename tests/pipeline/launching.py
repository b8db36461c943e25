"""Launching real training runs from tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from tests import processes
from tests.launch.runs import TRAINER, trainer_words


def launch(
    shards: Path, out: Path, *overrides: str, ranks: int = 1, steps: int = 10, batch: int = 24, data: str = ""
) -> subprocess.CompletedProcess:
    """One run of the real command to its end; several ranks are started as srun does, without accelerate's launcher.

    The fault tests and tests/launch/test_accelerate.py have the launcher start them.
    """
    words = launch_words(shards, out, *overrides, steps=steps, batch=batch, data=data)
    return processes.run(words, processes.environment(), 300, ranks)


def launch_words(
    shards: Path, out: Path, *overrides: str, processes: int = 1, steps: int = 10, batch: int = 24, data: str = ""
) -> list[str]:
    """The words of a command that trains; several processes use the file that the documents name."""
    how = ["python"]
    if processes > 1:
        how = ["accelerate", "launch", "--config_file", "launch/accelerate/cpu-2.yaml"]
        how += ["--num_processes", str(processes), "--main_process_port", "0"]
    return [*how, TRAINER, *trainer_words(data or shards, out, *overrides, steps=steps, batch=batch)]


def weights(run: Path, of: str = "model") -> dict[str, torch.Tensor]:
    """The trained weights of a run's newest checkpoint, or with "ema" their moving average."""
    return torch.load(run / "ckpt.pt", weights_only=True)[of]


def relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """|a − b| / |a| over all weights, in float64."""
    difference = sum(float(((a[key].double() - b[key].double()) ** 2).sum()) for key in a)
    return (difference / sum(float((a[key].double() ** 2).sum()) for key in a)) ** 0.5
