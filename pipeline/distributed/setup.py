"""Sets up a process: the process group, the precision, the threads and the compiler."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from torch.distributed.rendezvous import rendezvous

from pipeline.config.schema import Config, ConfigError
from pipeline.distributed.heartbeat import RankLostError, is_lost_connection, launch_attempt
from pipeline.model.vlae import VLAE
from pipeline.run.trackers import FOLDER as TRACKING
from preprocess.build.options import cores
from preprocess.errors import first_line

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
START_TIMEOUT = timedelta(seconds=300)
_DEVICE, _ACCUMULATION = "ACCELERATE_TORCH_DEVICE", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
_UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config (tensor, sequence or context parallelism)",
}


def check_launcher(environment: Mapping[str, str]) -> None:
    """Refuses what the launcher asks for and the trainer does not support.

    Precision and torch.compile are set by the recipe; the launcher's values for them have no effect.

    Raises:
        ConfigError: When a setting in ``environment`` is not supported; names it.
    """

    def refuse(setting: str, variable: str, reason: str) -> NoReturn:
        raise ConfigError(
            f"the launcher asks for {setting} ({variable}), {reason}; unset the variable, start with one of the files "
            "in launch/accelerate as --config_file, or run `accelerate config` again"
        )

    for variable, name in _UNSUPPORTED.items():
        if environment.get(variable, "false").lower() in ("1", "true", "yes", "y", "on", "t"):
            refuse(name, variable, "which is not supported here")
    device = environment.get(_DEVICE, "").partition(":")[0]
    if device and device != ("cuda" if torch.cuda.is_available() else "cpu"):
        refuse(f"the device {device}", _DEVICE, "which torch does not find or the trainer does not support")
    steps = environment.get(_ACCUMULATION, "1")
    if steps not in ("", "1"):
        reason = "which is not supported here: the MMD needs the whole batch at once"
        refuse(f"gradient accumulation over {steps} steps", _ACCUMULATION, reason)


def use_all_cores() -> None:
    """Divides the CPU cores among this machine's processes; launchers set one thread per process.

    OMP_NUM_THREADS other than 1, which is what the launchers set by default, is left alone.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local > 1 and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        torch.set_num_threads(max(1, cores() // local))


def keep_freed_memory() -> None:
    """Lets glibc keep what one step has freed for the next step, instead of returning it to the kernel.

    Otherwise the kernel maps and clears the same pages again in every step: an eighth of the time of a step on the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def join_after_restart() -> None:
    """Joins the process group under a new name after the launcher has restarted the ranks.

    The ranks meet in the launcher's key-value store, which outlives them. A fast rank may read the address of a dead
    rank there and wait for it.
    """
    attempt = launch_attempt()
    if attempt == "0":
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
    """Joins the process group and sets the precision; ``out`` is the run's folder.

    Raises:
        ConfigError: When the recipe or the launcher asks for what is not supported.
        RankLostError: When the other ranks did not arrive in time.
    """
    check_launcher(os.environ)
    use_all_cores()
    keep_freed_memory()
    try:
        join_after_restart()
        return Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=config.training.mixed_precision,
            dynamo_backend="no",  # training.compile decides; without this the launcher's setting would
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            log_with=list(config.training.trackers) or None,
            project_config=ProjectConfiguration(str(out), str(out / TRACKING)),
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=START_TIMEOUT),
                DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True),
            ],
        )
    except (ValueError, ImportError) as error:
        cause = "training.mixed_precision" if "precision" in str(error) else "the launcher's settings cannot be used"
        raise ConfigError(f"{cause}: {first_line(error)}") from None
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        raise RankLostError(
            f"rank {rank} of {world_size} did not meet the others within {START_TIMEOUT.seconds} s: check that all are "
            f"started, with one MASTER_ADDR and MASTER_PORT that each can reach [{first_line(error)}]"
        ) from None


def compile_vlae(vlae: VLAE) -> None:
    """Compiles encoder and decoder. Gathering the latents and the MMD stay in eager mode."""
    torch._dynamo.config.suppress_errors = True  # falls back to eager mode, with a warning, without a compiler
    vlae.encode = torch.compile(vlae.encode, dynamic=False)
    vlae.decode = torch.compile(vlae.decode, dynamic=False)
