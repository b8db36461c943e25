"""The training loop against its limit, the usual loop and pythae's trainer, and on two processes against one.

    python benchmarks/train.py [--recipe launch/recipes/demo.yaml] [--data SHARDS] [--steps 40] [--rounds 3]

All in one run on the same images (random ones where no shards are named), the loops taken in turns, each round in the
other direction. Prints medians of images/s, of ratios within a round, of the counted FLOPs against the rate of a large
matrix product in the precision used, and the peak memory; "CelebA pass" is the time for its 162,770 training images.
On a GPU encoder and decoder are compiled, as in training.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from flops import flops_per_image, matmul_rate
from process_scaling import largest_child_bytes, launch_rate
from random_shards import write_random_shards
from rich.console import Console
from rich.table import Table
from training_loops import fixed_batch, plain_loop, whole_loop, write_image_folder

from pipeline.config.load import resolve
from pipeline.config.schema import Config
from pipeline.data.shard_reader import load_images
from pipeline.distributed.setup import make_accelerator
from pipeline.run.state import Run
from pipeline.training.build import build_run
from pipeline.training.step_metrics import StepMetrics

IMAGES = 4096
CELEBA_TRAIN_IMAGES = 162_770
OURS, FIXED, PLAIN, PYTHAE = "whole loop", "(a) one fixed batch", "(b) ImageFolder loop", "(c) pythae INFOVAE_MMD"
Loops = dict[str, Callable[[], float]]


def pythae_row(images: torch.Tensor, batch: int, folder: Path) -> tuple[Callable[[], float], float] | None:
    """(its loop, its FLOPs an image), or None with a sentence where it cannot be imported."""
    try:
        module = importlib.import_module("pythae_loop")
    except Exception as error:  # it is an extra, last released in 2023 and may fail anywhere
        Console().print(f"without pythae ({error}): pip install -e '.[bench]' adds its row", markup=False)
        return None
    trainer = module.build_trainer(images, batch, folder)
    return (lambda: module.pythae_loop(trainer)), module.pythae_flops_per_image(images[:batch])


def in_turns(loops: Loops, rounds: int) -> dict[str, list[float]]:
    """Images/s of each loop in each round; every other round goes backwards."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        for name in list(loops) if number % 2 == 0 else reversed(loops):
            rates[name].append(loops[name]())
    return rates


def duration(seconds: float) -> str:
    """mm:ss, or h:mm:ss."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def loops_table(run: Run, rates: dict[str, list[float]], flops: dict[str, float], peaks: dict[str, float]) -> Table:
    """One row a loop; ``flops`` of an image and ``peaks`` (FLOP/s, of each loop's precision) by its name."""
    config, device = run.config, run.accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    precision = config.training.mixed_precision
    table = Table(title=f"{config.name}, batches of {config.training.global_batch_size}, {precision}, {name}")
    for column in ("loop", "images/s", "ours over it", "GFLOP/image", "of peak", "CelebA pass"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for loop, column in rates.items():
        rate = statistics.median(column)
        ratio = statistics.median(ours / other for ours, other in zip(rates[OURS], column, strict=True))
        gigaflop = flops[loop] / 1e9
        share = f"{rate * flops[loop] / peaks[loop]:.1%}"
        passed = duration(CELEBA_TRAIN_IMAGES / rate)
        table.add_row(loop, f"{rate:,.0f}", f"{ratio:.2f}", f"{gigaflop:.2f}", share, passed)
    return table


def launches_table(config: Config, recipe: Path, data: Path, folder: Path, steps: int, rounds: int) -> Table:
    """One process and two in turns, of real launches."""
    rates: list[tuple[float, float]] = []
    for number in range(rounds):
        pair = {
            processes: launch_rate(processes, recipe, data, folder / f"{number}-{processes}", steps)
            for processes in ((1, 2) if number % 2 == 0 else (2, 1))
        }
        rates.append((pair[1], pair[2]))
    table = Table("launches", "images/s", "over one process", title=f"{config.name}, one thread or one GPU a process")
    one, two = (statistics.median(column) for column in zip(*rates, strict=True))
    table.add_row("1 process", f"{one:,.0f}", "1")
    table.add_row("2 processes", f"{two:,.0f}", f"{statistics.median(b / a for a, b in rates):.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("launch/recipes/demo.yaml"))
    parser.add_argument("--data", type=Path, help="npy shards of 64x64 images; default: random images")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data or folder / "shards"
        if options.data is None:
            data.mkdir()
            write_random_shards(data, IMAGES)
        config = resolve(options.recipe, {"data": {"path": str(data)}, "training": {"trackers": []}})
        steps, batch = options.steps, config.training.global_batch_size
        launches = None
        if not torch.cuda.is_available() or torch.cuda.device_count() > 1:
            launches = launches_table(config, options.recipe, data, folder / "runs", steps, options.rounds)
        memory = largest_child_bytes()  # before other children, the loaders' workers, are counted too
        run = build_run(config, make_accelerator(config, folder))
        device, window = run.accelerator.device, StepMetrics(run)
        fixed_batch(run, window, 5)
        images = load_images(run.data.source, "train", IMAGES)
        write_image_folder(images, folder / "files")
        waits: list[float] = []

        def ours() -> float:
            rate, waiting = whole_loop(run, window, steps)
            waits.append(waiting)
            return rate

        loops: Loops = {
            OURS: ours,
            FIXED: lambda: fixed_batch(run, window, steps),
            PLAIN: lambda: plain_loop(run, folder / "files", steps),
        }
        flops = dict.fromkeys(loops, flops_per_image(config, run.model.vlae.image_shape))
        if (theirs := pythae_row(images[: steps * batch], batch, folder / "pythae")) is not None:
            loops[PYTHAE], flops[PYTHAE] = theirs
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            whole_loop(run, window, steps)
            memory = torch.cuda.max_memory_allocated(device)
        rates = in_turns(loops, options.rounds)
        half = torch.bfloat16 if config.training.mixed_precision == "bf16" else torch.float32
        products = {dtype: matmul_rate(device, dtype) for dtype in {half, torch.float32}}
    peaks = {loop: products[torch.float32 if loop == PYTHAE else half] for loop in loops}
    console.print(loops_table(run, rates, flops, peaks))
    said = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {dtype}" for dtype, rate in products.items())
    console.print(f"peak: a large matrix product in this run, {said}; pythae runs in float32")
    console.print(f"share of the whole loop spent waiting for data: {statistics.median(waits):.2%}")
    kind = "peak memory of the device" if device.type == "cuda" else "peak resident memory of one training process"
    console.print(f"{kind}: {memory / 2**20:,.0f} MiB")
    if launches is not None:
        console.print(launches)
    else:
        console.print("one GPU only: two processes against one were left out")


if __name__ == "__main__":
    main()
