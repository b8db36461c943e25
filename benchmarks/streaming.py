"""Training input over a slow network: the share of time that a trainer waits for images.

    python benchmarks/streaming.py --data shards/ [--rate 450] [--s3]

A local HTTP server replaces object storage: 50 ms latency a request, 50 MB/s in all, and one dropped connection in
200 requests. A consumer takes images at the trainer's rate. ``--s3`` reads the same shards from a local S3 server
instead (moto[server] and s3fs), without limits. No sample of an epoch may arrive twice.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for ``tests``, of which other packages have one too

from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import open_source
from pipeline.data.streaming import DEFAULT_WINDOW, StreamingLoader
from tests.pipeline.data.http_server import Network, served

BATCH = 64
PREFETCH = 8


@contextlib.contextmanager
def s3_served(folder: Path) -> Iterator[str]:
    """Puts the shards on a local S3 server and yields their address."""
    import fsspec  # noqa: PLC0415
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    files = fsspec.filesystem("s3")
    files.mkdir("shards")
    files.put(f"{folder}/", "shards/", recursive=True)
    try:
        yield "s3://shards"
    finally:
        server.stop()


def consume(address: str, rate: float, window: int) -> dict[str, float]:
    """Streams one epoch at ``rate`` images a second. Returns seconds, waiting behind the first batch, and repeats."""
    source = open_source(address, allow_pipe=False)
    samples = sum(shard.samples for shard in source.shards("train"))
    sampler = GlobalBatchSampler(samples, BATCH, 0, 0, 1)
    loader = StreamingLoader(source, window, torch.device("cpu"), 0)
    seen: list[int] = []
    begin = time.perf_counter()
    waited_at_first = 0.0
    for batch in loader.batches(sampler, 0, sampler.batches_per_epoch, PREFETCH):
        waited_at_first = waited_at_first or loader.waited_seconds
        seen += batch.indices.tolist()
        time.sleep(BATCH / rate)
    seconds = time.perf_counter() - begin
    return {
        "images": len(seen),
        "repeated": len(seen) - len(set(seen)),
        "first_batch_seconds": waited_at_first,
        "wait_share": (loader.waited_seconds - waited_at_first) / (seconds - waited_at_first),
        "images_per_second": len(seen) / (seconds - waited_at_first),
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of shards.")],
    rate: Annotated[float, typer.Option(help="Images a second that the trainer takes.")] = 450.0,
    window: Annotated[int, typer.Option(help="data.shuffle_window")] = DEFAULT_WINDOW,
    s3: Annotated[bool, typer.Option("--s3", help="Read from a local S3 server.")] = False,
) -> None:
    """Prints the figures of one epoch."""
    network = Network(latency_seconds=0.05, bytes_per_second=50e6, drop_every=200)
    with s3_served(data) if s3 else served(data, network) as address:
        figures = consume(address, rate, window)
    for name, value in figures.items():
        print(f"{name:>20} {value:12,.3f}")
    if figures["repeated"]:
        sys.exit("samples were repeated")


if __name__ == "__main__":
    typer.run(main)
