"""Several GPUs: images a second on 1 to N ranks over NCCL, and resuming across world sizes.

    python benchmarks/gpu_multi.py --recipe celeba64 [--data shards/] [--out gpu_multi.json]

``--dry-run`` goes through the same code with two CPU processes over gloo; its figures mean nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from gpu import machine
from process_scaling import launch_rate
from random_shards import write_random_shards

from pipeline.config.load import find_recipe


def main(
    recipe: Annotated[str, typer.Option(help="The recipe to train.")] = "celeba64",
    data: Annotated[Path | None, typer.Option(help="Folder of shards of 64x64.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("gpu_multi.json"),
    steps: Annotated[int, typer.Option(help="Steps of each launch.")] = 100,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Two CPU processes.")] = False,
) -> None:
    """Launches 1, 2, 4 … N ranks, then resumes the last run with 1 rank."""
    count = 2 if dry_run else torch.cuda.device_count()
    if count < 2:
        sys.exit("fewer than two GPUs here; --dry-run goes through the code on the CPU")
    ranks = sorted({2**power for power in range(count.bit_length()) if 2**power <= count} | {count})
    figures: dict[str, Any] = {"machine": machine(not dry_run), "recipe": recipe, "images_per_second": {}}
    with tempfile.TemporaryDirectory() as folder:
        shards = data or Path(folder) / "shards"
        if data is None:
            shards.mkdir()
            write_random_shards(shards, 1024 if dry_run else 50_000)
        for number in ranks:
            rate = launch_rate(number, find_recipe(recipe), shards, Path(folder) / f"run-{number}", steps)
            figures["images_per_second"][str(number)] = rate
            print(f"{number} ranks: {rate:,.0f} images/s", flush=True)
        launch_rate(1, find_recipe(recipe), shards, Path(folder) / f"run-{ranks[-1]}", 2 * steps)
        figures["resumed"] = f"{ranks[-1]} ranks, then 1"
        print(f"resumed: {figures['resumed']}")
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
