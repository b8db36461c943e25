"""How fast `preprocess celeba` is, as ratios measured in one run on the same files.

    python benchmarks/preprocessing.py --count 12000

The bar: images/s per core, writing included, over the bare JPEG decode (simplejpeg, files in memory) at least 0.6,
aim 0.8. What a core does is measured in this process, with the function that the workers run, a thousand images at a
time in turn with the bare decode of the same ones: CPU time and wall time. Beside it the whole command, marginal:
start-up, which does not grow with the images, is taken off by running it on a part of them too. Last, the way people do
it today (torchvision, one image at a time, `wds.ShardWriter` with JPEG members).

The file is not called preprocess.py: started as a script it would hide the package of that name.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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

from preprocess.build.build import make_spec, plan
from preprocess.build.options import BuildOptions
from preprocess.build.output import Output
from preprocess.build.worker import make_shard
from preprocess.sources.celeba import open_celeba

ROUNDS = 3
BAR, AIM = 0.6, "0.6, aim 0.8"
SHARD, CHUNK = 4096, 1024  # a shard has 2048 by default: what making one costs once must not weigh more here
TODAY_IMAGES = 1000


@dataclass
class Clock:
    """Sums what stretches of work take, in CPU seconds of this process and in wall seconds."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextlib.contextmanager
    def running(self):
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def decode_and_shards(tree: Path, scratch: Path) -> tuple[Clock, Clock]:
    """The bare decode of SHARD images (files in memory), and making shards of the same images, chunk by chunk in turn.

    Making a shard is reading, decoding, resizing, hashing, writing and flushing it. Taken in turn, so that the two
    share for any load of the machine; the rate of either is SHARD over its seconds.
    """
    options = BuildOptions(shard_size=CHUNK, limit=SHARD)
    catalogue = open_celeba(tree, 0)
    folder = Output(str(scratch / "shard"))
    folder.scratch.mkdir(parents=True, exist_ok=True)
    bare, ours = Clock(), Clock()
    for task in plan(catalogue, make_spec(catalogue, options), folder):
        files = [(tree / "img_align_celeba" / name).read_bytes() for name in task.table.sources]
        with bare.running():
            for data in files:
                simplejpeg.decode_jpeg(data, colorspace="RGB")
        (folder.path / task.file).unlink(missing_ok=True)  # replacing it would cost what giving its bytes back costs
        with ours.running():
            make_shard(task)
    return bare, ours


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
        decode_and_shards(tree, scratch)  # warms up
        clocks, one, two = [], [], []
        for _ in range(rounds):  # in turn, so that what else the machine does falls on all of them
            clocks.append(decode_and_shards(tree, scratch))
            one.append(marginal_rate(tree, scratch, 1, count))
            two.append(marginal_rate(tree, scratch, 2, count))
        today = today_rate(tree, scratch)
    median = statistics.median
    speedup = median(b / a for a, b in zip(one, two, strict=True))
    table = Table("what", "images/s", "ratio", "bar")
    ratios = {}
    for kind, words in (("cpu", "CPU time"), ("wall", "wall time")):
        pairs = [(getattr(bare, kind), getattr(ours, kind)) for bare, ours in clocks]
        ratios[kind] = median(bare / ours for bare, ours in pairs)
        table.add_row(f"bare simplejpeg decode, {words}", f"{SHARD / median(bare for bare, _ in pairs):,.0f}", "", "")
        rate = SHARD / median(ours for _, ours in pairs)
        table.add_row(f"making shards, one core, {words}", f"{rate:,.0f}", f"{ratios[kind]:.2f} of bare", AIM)
    table.add_row("preprocess celeba, 1 worker, marginal", f"{median(one):,.0f}", "", "")
    table.add_row("preprocess celeba, 2 workers, marginal", f"{median(two):,.0f}", f"{speedup:.2f} x one", "1.8")
    table.add_row(
        "torchvision + wds.ShardWriter, JPEG", f"{today:,.0f}", f"1/{median(one) / today:.1f} of 1 worker", ""
    )
    Console(width=100).print(table)
    if ratios["cpu"] < BAR:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
