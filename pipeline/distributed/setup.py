"""Sets up a process: the process group, the precision and the compiler."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration
from torch.distributed.rendezvous import rendezvous

from pipeline.config.schema import Config, ConfigError
from pipeline.distributed.heartbeat import PeerLost, is_lost_connection
from pipeline.model.vlae import VLAE
from pipeline.run.trackers import FOLDER as TRACKING

START_TIMEOUT = timedelta(seconds=300)


def join_after_restart() -> None:
    """Joins the process group under a name of this attempt's own when the launcher has started the ranks again.

    torch's ranks meet in the launcher's key-value store, which outlives them: a rank that is quick may read there the
    address of one that died, and wait for it. Several nodes count restarts apart, so their launcher must be told to
    make a store an attempt (docs/launch.md).
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return
    store, rank, world_size = next(rendezvous("env://", timeout=START_TIMEOUT))
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=dist.PrefixStore(f"restart-{attempt}", store),  # pyright: ignore[reportPrivateImportUsage]
        rank=rank,
        world_size=world_size,
        timeout=START_TIMEOUT,
    )


def make_accelerator(config: Config, out: Path) -> Accelerator:
    """The process group and precision.

    Raises ConfigError where the device cannot do what is asked, PeerLost where the other ranks do not come.
    """
    handlers = [
        InitProcessGroupKwargs(timeout=START_TIMEOUT),
        DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True),
    ]
    try:
        join_after_restart()
        return Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=config.training.mixed_precision,
            log_with=list(config.training.trackers) or None,
            project_config=ProjectConfiguration(str(out), str(out / TRACKING)),
            kwargs_handlers=handlers,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"training.mixed_precision: {error}") from None
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        raise PeerLost(
            f"rank {rank} of {world_size} did not meet the others within {START_TIMEOUT.seconds} s: see that all are "
            f"started, with one MASTER_ADDR and MASTER_PORT that each can reach [{str(error).splitlines()[0]}]"
        ) from None


def compile_ladder(vlae: VLAE) -> None:
    """Compiles what takes the time; the collective on the latents and the MMD's chunks stay as they are."""
    torch._dynamo.config.suppress_errors = True  # without a compiler on the machine it runs uncompiled, and says so
    vlae.encode = torch.compile(vlae.encode, dynamic=False)
    vlae.decode = torch.compile(vlae.decode, dynamic=False)
