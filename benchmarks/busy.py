"""Training beside other busy processes: images a second with adaptive threads, with all cores, and with one thread.

    python benchmarks/busy.py --data shards/ --recipe faces

Run it on an idle machine. Each row starts the trainer in a process of its own. The last column is the share of the idle
rate with all cores that adaptive threads keep (pipeline/training/threads.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Annotated

import psutil
import typer

REPOSITORY = Path(__file__).resolve().parent.parent
SPIN = "while True: pass"
LOADS = {
    "idle": (0, 0),
    "1 process at nice 19": (1, 19),
    "2 processes at nice 15": (2, 15),
    "1 process at equal priority": (1, 0),
}
"""Number and niceness of the busy processes."""
WARM_UP = 0.4
"""Share of the log's lines that is not counted: the first steps, and the reaction to the load."""


@contextlib.contextmanager
def busy_processes(count: int, nice: int) -> Iterator[None]:
    """Keeps ``count`` processes busy during the block."""
    processes = [subprocess.Popen(["nice", "-n", str(nice), sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def images_per_second(recipe: str, data: Path, steps: int, threads: int | None) -> float:
    """Trains for ``steps`` and returns the rate behind the warm-up. ``threads`` None = adaptive."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as out:
        quiet = ["validate_every_steps=0", "preview_every_steps=0", "checkpoint_every_steps=0", "trackers=[]"]
        words = ["--recipe", recipe, "--data", str(data), "--out", out, f"training.steps={steps}"]
        words += [f"training.{word}" for word in (*quiet, "log_every_steps=5")] + ["data.verify=size"]
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "pipeline/train.py"), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr)
        lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    counted = rates[int(len(rates) * WARM_UP) :]
    return 1 / mean(1 / rate for rate in counted)


def main(
    data: Annotated[Path, typer.Option(help="Folder of shards.")],
    recipe: Annotated[str, typer.Option(help="The recipe to train.")] = "faces",
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 100,
) -> None:
    """Prints a row for each load."""
    cores = psutil.cpu_count() or 1
    columns = {"adaptive": None, f"{cores} threads": cores, "1 thread": 1}
    print(f"{recipe}, {cores} cores, images/s")
    print("".join(f"{name:>30}" if not name else f"{name:>14}" for name in ("", *columns, "kept")))
    idle = 0.0
    for load, (count, nice) in LOADS.items():
        with busy_processes(count, nice):
            rates = {name: images_per_second(recipe, data, steps, threads) for name, threads in columns.items()}
        idle = idle or rates[f"{cores} threads"]
        figures = "".join(f"{rate:14.0f}" for rate in rates.values())
        print(f"{load:>30}{figures}{rates['adaptive'] / idle:14.2f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
