"""How fast `preprocess celeba` is, as ratios measured in one run on the same files.

    python benchmarks/preprocessing.py --count 12000

The bar: images/s per core, writing included, over the bare JPEG decode (simplejpeg, files in memory) at least 0.6,
aim 0.8. What a core does is measured in CPU time, of one shard made by the function that the workers run, so that
other work on the machine falls out of it. Beside it the wall time of the whole command, marginal: start-up, which does
not grow with the images, is taken off by running it on a part of them too. Last, the way people do it today
(torchvision, one image at a time, `wds.ShardWriter` with JPEG members).

The file is not called preprocess.py: started as a script it would hide the package of that name.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import simplejpeg
import torch
import typer
import webdataset as wds
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from preprocess.build import Options, make_recipe, plan
from preprocess.make_shard import make_shard
from preprocess.out_folder import OutFolder
from preprocess.sources.celeba import open_celeba

ROUNDS = 3
BAR = 0.6
SHARD = 2048
TODAY_IMAGES = 1000


def bare_decode(tree: Path, images: int = SHARD) -> tuple[float, float]:
    """Images/s of simplejpeg alone, files already in memory: by CPU time and by wall time."""
    files = [path.read_bytes() for path in sorted((tree / "img_align_celeba").iterdir())[:images]]
    start, start_cpu = time.perf_counter(), time.process_time()
    for data in files:
        simplejpeg.decode_jpeg(data, colorspace="RGB")
    return len(files) / (time.process_time() - start_cpu), len(files) / (time.perf_counter() - start)


def one_shard(tree: Path, scratch: Path) -> float:
    """Images/s by CPU time of making one shard: reading, decoding, resizing, hashing, writing and flushing it."""
    options = Options(64, None, SHARD, 1, 0, None, False, "npy", "bilinear")
    catalogue = open_celeba(tree, 0)
    folder = OutFolder(scratch / "shard")
    folder.scratch.mkdir(parents=True, exist_ok=True)
    task = plan(catalogue, make_recipe(catalogue, options), folder)[0]
    (folder.path / task.file).unlink(missing_ok=True)  # replacing it would cost what giving 30 MB back costs
    start = time.process_time()
    record = make_shard(task)
    return record.samples / (time.process_time() - start)


def command_seconds(tree: Path, scratch: Path, workers: int, limit: int) -> float:
    """Wall time of the command, from start-up to the manifest."""
    out = scratch / "shards"
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["--source", tree, "--out", out, "--workers", workers, "--limit", limit, "--shard-size", 1024]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from preprocess.cli import app; app()", "celeba", "--quiet", *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def marginal_rate(tree: Path, scratch: Path, workers: int, count: int) -> float:
    """Images/s of the command without its start-up."""
    part = count // 5
    short, long = (command_seconds(tree, scratch, workers, limit) for limit in (part, count))
    return (count - part) / (long - short)


def today_rate(tree: Path, scratch: Path) -> float:
    """Images/s of a torchvision dataset written by webdataset's ShardWriter as JPEG, one core."""
    torch.set_num_threads(1)
    transform = v2.Compose([v2.CenterCrop(148), v2.Resize(64)])
    paths = sorted((tree / "img_align_celeba").iterdir())[:TODAY_IMAGES]
    start = time.perf_counter()
    with wds.ShardWriter(str(scratch / "today-%06d.tar"), maxcount=1000, verbose=0) as writer:
        for path in paths:
            image = transform(Image.open(path).convert("RGB"))
            writer.write({"__key__": path.stem, "jpg": image, "json": {"key": path.stem}})
    return len(paths) / (time.perf_counter() - start)


def main(
    count: Annotated[int, typer.Option(min=500, help="Faces to draw for the corpus.")] = 12_000,
    source: Annotated[Path | None, typer.Option(help="Measure this CelebA tree instead.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = ROUNDS,
) -> None:
    """Prints the table; exit 1 where the bar is missed."""
    with tempfile.TemporaryDirectory(prefix="bench-preprocess-") as folder:
        scratch = Path(folder)
        tree = source or scratch / "tree"
        if source is None:
            draw = ["faces", "--out", str(tree), "--count", str(count)]
            subprocess.run([sys.executable, "-c", "from preprocess.cli import app; app()", *draw], check=True)
        count = min(count, sum(1 for _ in (tree / "img_align_celeba").iterdir()))
        bare, bare_wall, core, one, two = [], [], [], [], []
        for _ in range(rounds):  # in turn, so that what else the machine does falls on all of them
            by_cpu, by_wall = bare_decode(tree)
            bare.append(by_cpu)
            core.append(one_shard(tree, scratch))
            bare_wall.append(by_wall)
            one.append(marginal_rate(tree, scratch, 1, count))
            two.append(marginal_rate(tree, scratch, 2, count))
        today = today_rate(tree, scratch)
    median = statistics.median
    ratio = median(a / b for a, b in zip(core, bare, strict=True))
    wall_ratio = median(a / b for a, b in zip(one, bare_wall, strict=True))
    speedup = median(b / a for a, b in zip(one, two, strict=True))
    table = Table("what", "images/s", "ratio", "bar")
    table.add_row("bare simplejpeg decode, CPU time", f"{median(bare):,.0f}", "", "")
    table.add_row("one shard, CPU time", f"{median(core):,.0f}", f"{ratio:.2f} of bare", "0.6, aim 0.8")
    table.add_row("bare simplejpeg decode, wall time", f"{median(bare_wall):,.0f}", "", "")
    table.add_row("preprocess celeba, 1 worker, marginal", f"{median(one):,.0f}", f"{wall_ratio:.2f} of bare", "0.6")
    table.add_row("preprocess celeba, 2 workers, marginal", f"{median(two):,.0f}", f"{speedup:.2f} x one", "1.8")
    table.add_row(
        "torchvision + wds.ShardWriter, JPEG", f"{today:,.0f}", f"1/{median(one) / today:.1f} of 1 worker", ""
    )
    Console(width=100).print(table)
    if ratio < BAR:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
