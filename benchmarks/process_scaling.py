"""Images/s of real launches of the trainer on one process and on two, read from their metrics.jsonl."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from pipeline.run.run_dir import read_metrics

LOG_EVERY = 5
QUIET = ("validate_every_steps=0", "preview_every_steps=0", "checkpoint_every_steps=0", "trackers=[]")


def launch_rate(processes: int, recipe: Path, data: Path, out: Path, steps: int) -> float:
    """Images/s of the middle line of the log, the first left out. A CPU process gets one thread, a GPU process a GPU.

    Raises RuntimeError with what the launch said when it failed.
    """
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    config = f"launch/accelerate/{'gpu-1' if kind == 'gpu' else f'cpu-{processes}'}.yaml"
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    words += ["--num_processes", str(processes), "--main_process_port", "0"]
    words += ["--multi_gpu"] if kind == "gpu" and processes > 1 else []
    words += ["pipeline/train.py", "--recipe", str(recipe), "--data", str(data), "--out", str(out)]
    words += [
        "--steps",
        str(max(steps, 3 * LOG_EVERY)),
        f"training.log_every_steps={LOG_EVERY}",
        *(f"training.{key}" for key in QUIET),
    ]
    threads = {"OMP_NUM_THREADS": "1"} if kind == "cpu" else {}
    done = subprocess.run(words, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the launch of {processes} processes failed:\n{done.stderr[-2000:]}")
    return statistics.median(line["images_per_second"] for line in read_metrics(out)[1:])


def largest_child_bytes() -> int:
    """Peak resident memory of the largest process that this one has started and waited for, children's children too."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
