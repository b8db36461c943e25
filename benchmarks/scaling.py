"""What to expect on more GPUs and more images, computed from benchmarks/scaling_constants.yaml.

python benchmarks/scaling.py            # writes the tables between the markers of docs/scaling.md
python benchmarks/scaling.py --count    # counts parameters and FLOPs of the recipe again, times the MMD
"""

from __future__ import annotations

import argparse
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
CONSTANTS = REPOSITORY / "benchmarks/scaling_constants.yaml"
PAGE = REPOSITORY / "docs/scaling.md"
RECIPES = REPOSITORY / "launch/recipes"
RECIPE = "paper-celeba64"
GPUS = (1, 8, 64, 512)
IMAGES = (200_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
BATCH_PER_GPU = 128


def read_constants() -> dict[str, dict[str, Any]]:
    """name → value, unit, kind, source."""
    return yaml.safe_load(CONSTANTS.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """Seconds of one optimizer step on ``gpus`` GPUs, by what they go to."""

    gpus: int
    compute: float
    mmd: float
    host: float
    exposed: float
    """Communication that nothing hides."""

    @property
    def seconds(self) -> float:
        return max(self.compute + self.mmd, self.host) + self.exposed

    @property
    def images_per_second(self) -> float:
        return self.gpus * BATCH_PER_GPU / self.seconds

    @property
    def bottleneck(self) -> str:
        device = self.compute + self.mmd
        if self.exposed > max(device, self.host) / 2:
            return "network"
        if self.host > device:
            return "host (kernel launches)"
        return "GPU: MMD" if self.mmd > self.compute else "GPU: convolutions"


def step_on(gpus: int, c: dict[str, float]) -> Step:
    """One step of BATCH_PER_GPU images a GPU."""
    nodes = math.ceil(gpus / c["gpus_per_node"])
    compute = BATCH_PER_GPU * c["flops_per_image"] / (c["gpu_peak"] * c["gpu_utilisation"])
    mmd = c["layers"] * BATCH_PER_GPU * BATCH_PER_GPU * gpus * c["mmd_pair_on_gpu"]
    if gpus == 1:
        return Step(gpus, compute, mmd, c["host_seconds_per_step"], 0.0)
    link = c["inter_node_bandwidth"] if nodes > 1 else c["intra_node_bandwidth"]
    gradient_bytes = 4 * c["parameters"]
    hops = c["latency_per_collective"] * (1 + math.log2(nodes))
    reduce = 2 * (gpus - 1) / gpus * gradient_bytes / (link * c["link_efficiency"])
    reduce += math.ceil(gradient_bytes / c["bucket_bytes"]) * hops
    gather = 4 * c["latent_dimensions"] * BATCH_PER_GPU * (gpus - 1) / (link * c["link_efficiency"]) + hops
    exposed = max(0.0, reduce - c["overlap"] * compute) + gather
    return Step(gpus, compute, mmd, c["host_seconds_per_step"], exposed)


@dataclass(frozen=True)
class Size:
    """What ``images`` images cost on ``gpus`` GPUs."""

    shard_bytes: float
    preprocess_hours: float
    verify_minutes: float
    images_per_second: float
    bottleneck: str
    change: str


def size_on(images: int, gpus: int, c: dict[str, float]) -> Size:
    """The three stages for one number of images; the first limit that binds is named."""
    cores = gpus * c["cores_per_gpu"]
    shard_bytes = images * c["record_bytes"]
    moved = c["record_bytes"] + c["source_bytes_per_image"]
    rate = min(cores * c["bare_decode_per_core"] * c["preprocess_over_decode"], c["storage_bandwidth"] / moved)
    verify = max(shard_bytes / (gpus * c["sha256_per_core"]), shard_bytes / c["storage_bandwidth"])
    step = step_on(gpus, c)
    fits = shard_bytes < c["memory_per_node"] / 2
    limits = {step.bottleneck: step.images_per_second}
    if not fits:
        limits["storage"] = c["storage_bandwidth"] / c["record_bytes"]
    limits["memory feed"] = gpus * c["feed_per_thread"]
    ranks_here = min(gpus, c["gpus_per_node"])
    order_bytes = 2 * ranks_here * images * c["permutation_bytes"]
    binds = min(limits, key=lambda name: limits[name])
    change = []
    if BATCH_PER_GPU * gpus * 100 > images:
        change.append("a batch is over 1 % of the images: fewer GPUs")
    if not fits:
        mapped = f" (mapped, the order of an epoch would take {order_bytes / 1e9:.0f} GB a node"
        mapped += f" and {images / c['permutation_per_second']:.0f} s)"
        big = order_bytes > 0.05 * c["memory_per_node"]
        change.append(f"larger than half a node's memory: data.mode=streamed{mapped if big else ''}")
    if verify > 300:
        change.append("data.verify=size, and preprocess verify beforehand")
    hours = images / rate / 3600
    return Size(shard_bytes, hours, verify / 60, limits[binds], binds, "; ".join(change) or "nothing")


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def step_table(c: dict[str, float]) -> str:
    """Throughput and what a step's time goes to, for each number of GPUs."""
    rows = []
    one = step_on(1, c).images_per_second
    for gpus in GPUS:
        step = step_on(gpus, c)
        parts = (f"{1e3 * s:.2f}" for s in (step.compute, step.mmd, step.host, step.exposed, step.seconds))
        rate = step.images_per_second
        rows.append(
            (
                str(gpus),
                f"{gpus * BATCH_PER_GPU:,}",
                *parts,
                f"{rate:,.0f}",
                f"{rate / one / gpus:.0%}",
                step.bottleneck,
            )
        )
    names = ("GPUs", "global batch", "convolutions, ms", "MMD, ms", "host, ms", "exposed network, ms", "step, ms")
    return _table((*names, "images/s", "efficiency", "bottleneck"), rows)


def size_table(c: dict[str, float]) -> str:
    """The three stages for each number of images and GPUs."""
    rows = []
    for images in IMAGES:
        for gpus in GPUS:
            size = size_on(images, gpus, c)
            epoch = images / size.images_per_second
            rows.append(
                (
                    f"{images:,}",
                    str(gpus),
                    f"{size.shard_bytes / 1e9:,.0f} GB",
                    _span(size.preprocess_hours * 3600),
                    _span(size.verify_minutes * 60),
                    f"{size.images_per_second:,.0f}",
                    _span(epoch),
                    size.bottleneck,
                    size.change,
                )
            )
    names = ("images", "GPUs", "shards", "preprocess", "check at start", "images/s", "an epoch", "bottleneck")
    return _table((*names, "what changes there"), rows)


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"


def stage_table(c: dict[str, float]) -> str:
    """Bytes and seconds of one image in each stage."""
    core = 1 / (c["bare_decode_per_core"] * c["preprocess_over_decode"])
    gpu = c["flops_per_image"] / (c["gpu_peak"] * c["gpu_utilisation"])
    gradient = 4 * c["parameters"]
    rows = [
        (
            "preprocess",
            f"{c['source_bytes_per_image']:,.0f} read, {c['record_bytes']:,.0f} written",
            f"{core * 1e6:.0f} µs of a core",
        ),
        (
            "check at start",
            f"{c['record_bytes']:,.0f} read",
            f"{c['record_bytes'] / c['sha256_per_core'] * 1e6:.0f} µs of a core",
        ),
        ("feed", "12,288 gathered and sent to the GPU", f"{1e6 / c['feed_per_thread']:.1f} µs of a core"),
        (
            "training",
            f"{gradient / BATCH_PER_GPU / 1e6:.1f} million all-reduced at {BATCH_PER_GPU} a GPU",
            f"{gpu * 1e6:.0f} µs of a GPU",
        ),
    ]
    return _table(("stage", "bytes an image", "time an image"), rows)


MACHINES = (
    ("2-core laptop", "cpu_peak_2_cores", 1, 1.0),
    ("16-core server", "cpu_peak_2_cores", 1, 6.4),
    ("one RTX 4090", "consumer_gpu_peak", 1, 1.0),
    ("one H100", "gpu_peak", 1, 1.0),
    ("eight H100", "gpu_peak", 8, 1.0),
)
"""Name, constant of the peak, devices, factor on the peak: 16 cores count as 6.4 times two, 20 % lost to waiting."""
EXPECTED = (("photos", 460_800), ("celeba64", 10_240_000))


def machine_table(c: dict[str, float]) -> str:
    """Images per second and the time of a whole run of two recipes on five machines."""
    rows = []
    for machine, peak, devices, factor in MACHINES:
        cells = [machine]
        for recipe, images in EXPECTED:
            batch = c[f"{recipe}_batch"]
            utilisation = c["cpu_utilisation"] if peak.startswith("cpu") else c["gpu_utilisation"]
            seconds = batch / devices * c[f"{recipe}_flops_per_image"] / (c[peak] * factor * utilisation)
            rate = batch / max(seconds, 0.0 if peak.startswith("cpu") else c["host_seconds_per_step"])
            cells += [f"{rate:,.0f}", _span(images / rate)]
        rows.append(tuple(cells))
    return _table(("machine", *(f"{n}, {what}" for n, _ in EXPECTED for what in ("images/s", "whole run"))), rows)


def constant_table() -> str:
    """Every constant with its kind and source."""
    rows = [
        (name, f"{e['value']:,g}".replace("e+", "e"), e["unit"], e["kind"], e["source"])
        for name, e in read_constants().items()
    ]
    return _table(("constant", "value", "unit", "kind", "source"), rows)


def render(page: str) -> str:
    """The page with each table between its markers made again."""
    c = {name: float(entry["value"]) for name, entry in read_constants().items()}
    tables = {
        "machines": machine_table(c),
        "stages": stage_table(c),
        "steps": step_table(c),
        "sizes": size_table(c),
        "constants": constant_table(),
    }
    for name, text in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, found = re.subn(pattern, lambda m, text=text: m[1] + text + m[2], page, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"{PAGE} must have one pair of markers for {name}, has {found}")
    return page


def count_recipe(name: str) -> dict[str, float]:
    """Parameters, FLOPs of one image forward and backward, layers, latents and batch of a recipe, from the code."""
    import torch  # noqa: PLC0415 - seconds that the tables do not need
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

    from pipeline.config.load import resolve  # noqa: PLC0415
    from pipeline.losses.objective import Objective  # noqa: PLC0415
    from pipeline.model.vlae import VLAE  # noqa: PLC0415

    config = resolve(RECIPES / f"{name}.yaml", {})
    vlae = VLAE(config.model, (3, 64, 64))
    images, dimensions = torch.zeros(2, 3, 64, 64), sum(vlae.latent_sizes)
    with FlopCounterMode(display=False) as counter:
        noise = torch.zeros(2, dimensions)
        Objective(vlae, config.objective, 0, 1)(images, images, noise, torch.randn_like(noise), None).loss.backward()
    return {
        "parameters": sum(p.numel() for p in vlae.parameters()),
        "flops_per_image": counter.get_total_flops() / len(images),
        "latent_dimensions": dimensions,
        "layers": len(vlae.latent_sizes),
        "batch": config.training.global_batch_size,
    }


def count_constants() -> dict[str, float]:
    """The counted constants of the recipes."""
    counts = count_recipe(RECIPE)
    del counts["batch"]  # the tables of a step take BATCH_PER_GPU
    for name, _ in EXPECTED:
        found = count_recipe(name)
        counts |= {f"{name}_{key}": found[key] for key in ("flops_per_image", "batch")}
    return counts


def time_mmd(world_size: int, rows: int = 64) -> float:
    """Seconds a pair of one layer's MMD on one CPU core: ``rows`` latents against those of ``world_size`` ranks."""
    import torch  # noqa: PLC0415

    from pipeline.config.schema import KernelConfig  # noqa: PLC0415
    from pipeline.losses.kernels import make_kernel  # noqa: PLC0415
    from pipeline.losses.mmd import local_mmd  # noqa: PLC0415

    torch.set_num_threads(1)
    kernel = make_kernel(KernelConfig(), 10)
    gathered, prior = torch.randn(2, rows * world_size, 10)
    best = math.inf
    for _ in range(5):
        local = gathered[:rows].clone().requires_grad_()
        begin = time.perf_counter()
        local_mmd(local, gathered, prior, 0, kernel).unbiased.backward()
        best = min(best, time.perf_counter() - begin)
    return best / (rows * rows * world_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="Count and time on this machine; write nothing.")
    if parser.parse_args().count:
        for name, value in count_constants().items():
            print(f"{name}: {value:,.0f}")
        for world_size in GPUS:
            print(f"mmd_pair_on_cpu, 64 rows on each of {world_size} ranks: {time_mmd(world_size) * 1e9:.0f} ns")
        return
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
