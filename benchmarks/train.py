"""The training loop against its limit, the same steps fed from one fixed batch, and against the usual loop.

    python benchmarks/train.py [--recipe launch/recipes/demo.yaml] [--steps 40] [--pairs 3]

Draws random shards, then alternates the whole loop (mapped feed, background thread) with steps on one batch that is on
the device already and with a plain PyTorch loop over the same number of JPEG files, in one process, and prints
images/s of each, the ratios and the share of time spent waiting for data.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from random_shards import SHAPE, write_random_shards
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pipeline.config import resolve
from pipeline.objective import Objective
from pipeline.run_setup import Run, build_run, make_accelerator
from pipeline.trainer import Window, train_step
from pipeline.vlae import VLAE


def fed(run: Run, window: Window, steps: int) -> tuple[float, float]:
    """(images/s, share of the time spent waiting for data) of the whole loop."""
    waited = run.train_feed.waited_seconds
    batches = run.train_feed.batches(run.plan, run.step, run.step + steps, run.config.data.prefetch_batches)
    begin = time.perf_counter()
    for batch in batches:
        train_step(run, batch, window)
    seconds = time.perf_counter() - begin
    images = steps * run.config.training.global_batch_size
    return images / seconds, (run.train_feed.waited_seconds - waited) / seconds


def fixed(run: Run, window: Window, steps: int) -> float:
    """Images/s of the same steps on one batch: the limit."""
    batch = next(run.train_feed.batches(run.plan, 0, 1, 1))
    begin = time.perf_counter()
    for _ in range(steps):
        train_step(run, batch, window)
    return steps * run.config.training.global_batch_size / (time.perf_counter() - begin)


def write_image_folder(folder: Path, samples: int) -> None:
    """As many JPEG files, the way torchvision's ImageFolder wants them."""
    (folder / "all").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (samples, *SHAPE), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "all" / f"{number:06d}.jpg", quality=95)


def plain(run: Run, folder: Path, steps: int) -> float:
    """Images/s of the same model and loss in a plain PyTorch loop over ImageFolder and a DataLoader of two workers."""
    config = run.config
    vlae = VLAE(config.model, run.vlae.image_shape).to(run.accelerator.device, memory_format=torch.channels_last)
    objective = Objective(vlae, config.objective, 0, 1)
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.optimizer.learning_rate)
    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    batch = config.training.global_batch_size
    loader = DataLoader(ImageFolder(str(folder), change), batch, shuffle=True, num_workers=2, drop_last=True)
    device, latents = run.accelerator.device, sum(vlae.latent_sizes)
    taken, begin = 0, time.perf_counter()
    while taken < steps:
        for loaded, _ in loader:
            images = loaded.to(device, memory_format=torch.channels_last)
            noise, prior = torch.randn(2, len(images), latents, device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.training.mixed_precision == "bf16"):
                losses = objective(images, images, noise, prior, None)
            losses.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            taken += 1
            if taken == steps:
                break
    return steps * batch / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("launch/recipes/demo.yaml"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_random_shards(Path(folder), 4096)
        config = resolve(options.recipe, {"data.path": folder, "training.trackers": []})
        run = build_run(config, make_accelerator(config, Path(folder)))
        window = Window(run)
        fixed(run, window, 5)
        write_image_folder(Path(folder) / "files", 4096)
        steps = options.steps
        pairs = [
            (*fed(run, window, steps), fixed(run, window, steps), plain(run, Path(folder) / "files", steps))
            for _ in range(options.pairs)
        ]
    whole, waiting, limit, usual = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / c for a, _, c, _ in pairs)
    over = statistics.median(a / d for a, _, _, d in pairs)
    table = Table("figure", "median", title=f"Training loop, {config.name}, one process on {run.accelerator.device}")
    table.add_row("whole loop, images/s", f"{whole:,.0f}")
    table.add_row("steps on one fixed batch, images/s", f"{limit:,.0f}")
    table.add_row("ratio, pair by pair", f"{ratio:.3f}")
    table.add_row("plain loop over ImageFolder, images/s", f"{usual:,.0f}")
    table.add_row("whole loop over the plain one, pair by pair", f"{over:.3f}")
    table.add_row("share of the loop spent waiting for data", f"{waiting:.3%}")
    Console().print(table)


if __name__ == "__main__":
    main()
