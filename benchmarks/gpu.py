"""All that needs a GPU, in at most 8 minutes: precisions, compilation, throughput, waiting, synchronization, memory.

    python benchmarks/gpu.py [--data shards/] [--out gpu.json]

Without ``--data`` it trains on random shards. ``--dry-run`` goes through the same code on the CPU with few small steps;
its figures mean nothing. benchmarks/gpu_multi.py is for two GPUs and more.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate.state import AcceleratorState
from flops import flops_per_image, matmul_rate
from random_shards import write_random_shards

from pipeline.config.load import merge, parse_overrides, resolve
from pipeline.config.schema import Config
from pipeline.data.batch import Batch
from pipeline.distributed.setup import make_accelerator
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import local_mmd
from pipeline.run.state import Run
from pipeline.training.build import build_run
from pipeline.training.loop import train_step
from pipeline.training.step_metrics import StepMetrics

RECIPES = ("celeba64", "faces", "photos")
SMALL = (
    'model.layers=["8/2", "16/2", "fc32"]',
    "model.latents=[3, 3, 3]",
    "model.contribution_grid=[0, 0, 0]",
    "objective.laplacian_band_weights=[]",
    "training.global_batch_size=8",
)
QUIET = ("training.trackers=[]", "training.validate_every_steps=0", "training.preview_every_steps=0")
TOLERANCE = {"fp16": 0.05, "bf16": 0.1, "tf32": 0.02}
"""Largest relative difference of the loss from float32 after the steps of ``precisions``."""


class Bench:
    """One device, one set of shards."""

    def __init__(self, data: Path, out: Path, dry: bool) -> None:
        """Takes the shards, a folder for runs, and whether to take few small steps only."""
        self.data, self.out, self.dry = data, out, dry
        self.cuda = torch.cuda.is_available() and not dry
        self.steps = 3 if dry else 100

    def run(self, recipe: str, *overrides: str) -> Run:
        """Builds a run of a recipe."""
        AcceleratorState._reset_state(reset_partial_state=True)  # each run has its own precision
        words = parse_overrides([*QUIET, *(SMALL if self.dry else ()), *overrides])
        path = Path(__file__).parent.parent / f"launch/recipes/{recipe}.yaml"
        config: Config = resolve(path, merge(words, {"data": {"path": str(self.data)}}))
        return build_run(config, make_accelerator(config, self.out))

    def wait(self) -> None:
        """Waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def train(self, run: Run, steps: int) -> tuple[float, float]:
        """Makes steps. Returns (seconds, share of them spent waiting for data)."""
        metrics = StepMetrics(run)
        run.model.objective.train()
        self.wait()
        begin, waited = time.perf_counter(), run.data.train.waited_seconds
        batches = run.data.train.batches(run.data.sampler, run.step, run.step + steps, 8)
        for batch in batches:
            train_step(run, batch, metrics)
        self.wait()
        seconds = time.perf_counter() - begin
        return seconds, (run.data.train.waited_seconds - waited) / seconds

    def loss(self, run: Run, steps: int) -> float:
        """Returns the mean loss of some steps."""
        metrics = StepMetrics(run)
        for batch in run.data.train.batches(run.data.sampler, run.step, run.step + steps, 8):
            train_step(run, batch, metrics)
        return metrics.read(run)["loss"]

    def batch(self, run: Run) -> Batch:
        """Returns one batch."""
        return next(run.data.train.batches(run.data.sampler, 0, 1, 1))


def precisions(bench: Bench) -> dict[str, Any]:
    """Losses in every precision, which must agree with float32."""
    steps = 3 if bench.dry else 50
    kinds = {"float32": "no", "bf16": "bf16"} | ({"fp16": "fp16", "tf32": "no"} if bench.cuda else {})
    found: dict[str, Any] = {}
    for name, mixed in kinds.items():
        run = bench.run("faces", f"training.mixed_precision={mixed}", "training.compile=never")
        if bench.cuda:
            precision = "tf32" if name == "tf32" else "ieee"
            torch.backends.cuda.matmul.fp32_precision = precision
            torch.backends.cudnn.conv.fp32_precision = precision  # pyright: ignore[reportAttributeAccessIssue]
        found[name] = bench.loss(run, steps)
    reference = found["float32"]
    differences = {name: abs(loss / reference - 1) for name, loss in found.items()}
    agrees = {name: differences[name] < limit for name, limit in TOLERANCE.items() if name in found}
    return {"loss": found, "agrees_with_float32": agrees}


def throughput(bench: Bench) -> dict[str, Any]:
    """Images a second, eager and compiled, beside the device's matrix peak, with the share of waiting for data."""
    device = torch.device("cuda" if bench.cuda else "cpu")
    peak = matmul_rate(device, torch.bfloat16) if not bench.dry else 1.0
    found: dict[str, Any] = {}
    for recipe in RECIPES:
        for compiled in ("never", "always") if bench.cuda else ("never",):
            run = bench.run(recipe, f"training.compile={compiled}")
            bench.train(run, 3 if bench.dry else 15)  # compilation and warm-up
            seconds, waiting = bench.train(run, bench.steps)
            images = bench.steps * run.config.training.global_batch_size / seconds
            found[f"{recipe}, {'compiled' if compiled == 'always' else 'eager'}"] = {
                "images_per_second": images,
                "share_of_matrix_peak": images * flops_per_image(run.config, run.model.vlae.image_shape) / peak,
                "data_wait_share": waiting,
            }
    return found


def synchronization(bench: Bench) -> dict[str, Any]:
    """Whether a step makes the host wait for the device: torch then raises an error."""
    if not bench.cuda:
        return {"checked": False}
    found: dict[str, Any] = {}
    for recipe in ("celeba64", "faces"):
        run = bench.run(recipe, "training.compile=never")
        batch, metrics = bench.batch(run), StepMetrics(run)
        train_step(run, batch, metrics)
        torch.cuda.set_sync_debug_mode("error")
        try:
            train_step(run, batch, metrics)
            found[recipe] = "none"
        except RuntimeError as error:
            found[recipe] = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def memory(bench: Bench) -> dict[str, float]:
    """Peak memory in GiB by batch size."""
    found: dict[str, float] = {}
    for size in (8,) if bench.dry else (128, 512, 2048):
        run = bench.run("celeba64", f"training.global_batch_size={size}", "training.compile=never")
        if bench.cuda:
            torch.cuda.reset_peak_memory_stats()
        bench.train(run, 2)
        found[str(size)] = torch.cuda.max_memory_allocated() / 2**30 if bench.cuda else 0.0
    return found


def mmd_share(bench: Bench) -> dict[str, float]:
    """Share of a step that the MMD of all layers takes."""
    run = bench.run("celeba64", "training.compile=never")
    device, config = run.accelerator.device, run.config
    size, count = config.training.global_batch_size, 3 if bench.dry else 50
    bench.train(run, 3)
    step_seconds = bench.train(run, count)[0] / count
    kernels = [(d, make_kernel(config.objective.kernel, d)) for d in config.model.latents]
    layers = [(torch.randn(size, d, device=device), kernel) for d, kernel in kernels]
    bench.wait()
    begin = time.perf_counter()
    for _ in range(count):
        for z, kernel in layers:
            local = z.clone().requires_grad_()
            local_mmd(local, z, torch.randn_like(z), 0, kernel).biased.backward()
    bench.wait()
    return {"mmd_share": (time.perf_counter() - begin) / count / step_seconds}


def machine(cuda: bool) -> dict[str, str]:
    """Date, device and versions."""
    device = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda) if cuda else "",
        "python": platform.python_version(),
    }


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of shards of 64x64.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("gpu.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="A few small steps on the CPU.")] = False,
) -> None:
    """Runs every part, prints its figures, and writes them as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        shards = data or Path(folder) / "shards"
        if data is None:
            shards.mkdir()
            write_random_shards(shards, 512 if dry_run else 20_000)
        bench = Bench(shards, Path(folder) / "run", dry_run)
        if not bench.cuda and not dry_run:
            raise SystemExit("no GPU here; --dry-run goes through the code on the CPU")
        figures: dict[str, Any] = {"machine": machine(bench.cuda)}
        for part in (precisions, throughput, synchronization, memory, mmd_share):
            begin = time.perf_counter()
            figures[part.__name__] = part(bench)
            print(
                f"{part.__name__} ({time.perf_counter() - begin:.0f} s)", json.dumps(figures[part.__name__], indent=1)
            )
            out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
