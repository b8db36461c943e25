"""Everything a run needs before its first step, built from the configuration and, when resuming, a checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration, set_seed
from torch import nn
from torch.distributed.rendezvous import rendezvous

from pipeline.checkpoint.file import SCHEMA_VERSION, CheckpointError, checkpoint_config
from pipeline.config.schema import Config, ConfigError
from pipeline.data.loader import Mode, choose_mode, open_indexed_loader, open_train_loader, split_bytes
from pipeline.data.mapped import BatchLoader, IndexedLoader
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_checks import refuse_other_shards, usable
from pipeline.data.shard_source import ShardSource, open_source
from pipeline.data.streaming import StreamingLoader
from pipeline.distributed.consistency import agree, run_fingerprint
from pipeline.distributed.heartbeat import PeerLost, is_lost_connection
from pipeline.losses.objective import Objective
from pipeline.model.vlae import VLAE
from pipeline.optim.ema import MovingAverage
from pipeline.optim.muon import Muon
from pipeline.run.run_dir import differences
from pipeline.run.trackers import FOLDER as TRACKING
from pipeline.training.previews import RECONSTRUCTIONS

START_TIMEOUT = timedelta(seconds=300)


@dataclass
class Run:
    """One rank's view of a run; ``step`` counts finished optimizer steps."""

    config: Config
    accelerator: Accelerator
    source: ShardSource
    mode: Mode
    plan: GlobalBatchSampler
    train_loader: BatchLoader
    valid_loader: IndexedLoader | None
    preview_loader: IndexedLoader
    vlae: VLAE
    objective: nn.Module
    """The VLAE with its loss, wrapped for data parallelism."""
    optimizer: AcceleratedOptimizer
    average: MovingAverage
    step: int = 0
    notes: list[str] = field(default_factory=list)
    """What a person should hear once."""

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process


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


def batch_norm_note(run: Run) -> list[str]:
    """A warning where BatchNorm would see the rank's part of the batch."""
    if run.config.model.norm != "batch" or run.plan.world_size == 1 or run.accelerator.device.type == "cuda":
        return []
    return [
        "warning: BatchNorm on CPU processes sees each process's part of the batch only, so this run depends on their "
        "number; model.norm=group does not, and GPUs synchronize it"
    ]


def make_sampler(config: Config, source: ShardSource, rank: int, world_size: int) -> GlobalBatchSampler:
    """The order of samples. Raises ConfigError where the batches cannot be made."""
    counts = tuple(shard.samples for shard in source.shards("train"))
    if not counts:
        raise ConfigError(f"{source.address} has no images in its train split")
    batch, window = config.training.global_batch_size, config.data.shuffle_window
    try:
        return GlobalBatchSampler(sum(counts), batch, config.seed, rank, world_size, window, counts if window else ())
    except ValueError as error:
        raise ConfigError(str(error)) from None


def sample_order(run: Run) -> str:
    """What the order of samples depends on beside seed and batch; a stream is cut into parts, a plan is not."""
    if run.mode != "streamed":
        return "planned"
    return f"streamed by {run.plan.world_size} x {max(1, run.config.data.workers)}"


def describe_loader(run: Run) -> str:
    """One line on where the images come from."""
    size = f"{split_bytes(run.source, 'train') / 2**30:.2f} GiB of pixels"
    where = {"mapped": "mapped from", "resident": f"resident on the {run.accelerator.device.type}, read from"}
    return f"images: {size}, {where.get(run.mode, 'streamed from')} {run.source.address}"


def build_optimizer(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Fused Adam or AdamW, or Muon. Norms, gates and biases are not decayed; ``rate_scale`` slows wide weights."""
    settings = config.optimizer
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        base = settings.base_fan_in or fan_in
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        grouped.setdefault((min(1.0, base / fan_in), decay), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in grouped.items()
    ]
    if settings.name == "muon":
        return Muon(groups, settings.learning_rate, settings.momentum, settings.betas)
    kind = torch.optim.AdamW if settings.decoupled_weight_decay else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def build_run(config: Config, accelerator: Accelerator, allow_pipe: bool = False) -> Run:
    """Opens the shards, builds model and optimizer, and wraps them for this number of processes.

    Raises ConfigError, ManifestError, ShardError, LoaderError or RankMismatchError with a sentence for the terminal.
    """
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if accelerator.device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # what autocast leaves in float32; convolutions have it so
    source = open_source(config.data.path, allow_pipe)
    agree(run_fingerprint(config, source.digest))  # before anything that would hang on ranks that differ
    source, notes = usable(source, config.data, rank, world_size)
    plan = make_sampler(config, source, rank, world_size)
    mode = choose_mode(config.data.mode, source, accelerator.device)
    height, width, channels = source.manifest.image_shape
    set_seed(config.seed)
    vlae = VLAE(config.model, (channels, height, width)).to(accelerator.device)
    vlae = vlae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    objective: nn.Module = Objective(vlae, config.objective, rank, world_size)
    if config.model.norm == "batch" and world_size > 1 and accelerator.device.type == "cuda":
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    train_loader = open_train_loader(config.data, mode, source, accelerator.device, world_size)
    valid_loader = None
    if sum(shard.samples for shard in source.shards("valid")) > 1:
        limit = config.training.validation_samples
        valid_loader = open_indexed_loader(config.data, source, "valid", limit, accelerator.device)
    if isinstance(train_loader, StreamingLoader):
        preview_loader = valid_loader or open_indexed_loader(
            config.data, source, "train", RECONSTRUCTIONS, accelerator.device
        )
    else:
        preview_loader = valid_loader or train_loader
    average = MovingAverage(vlae)
    if config.training.compile == "always" or (config.training.compile == "auto" and accelerator.device.type == "cuda"):
        compile_ladder(vlae)
    prepared, optimizer = accelerator.prepare(objective, build_optimizer(objective, config))
    return Run(
        config,
        accelerator,
        source,
        mode,
        plan,
        train_loader,
        valid_loader,
        preview_loader,
        vlae,
        prepared,
        optimizer,
        average,
        notes=notes,
    )


def checkpoint_state(run: Run) -> dict[str, Any]:
    """The checkpoint's contents (docs/formats.md): plain values and tensors only."""
    scaler = run.accelerator.scaler
    step = run.step
    return {
        "schema_version": SCHEMA_VERSION,
        "config": run.config.plain(),
        "image_shape": list(run.vlae.image_shape),
        "model": run.vlae.state_dict(),
        "ema": run.average.module.state_dict() if run.config.training.ema_images else None,
        "optimizer": run.optimizer.state_dict(),
        # the schedule is a function of the step, kept for readers of the file
        "scheduler": {
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "steps": run.config.training.steps,
        },
        "scaler": scaler.state_dict() if scaler is not None else None,
        "progress": {
            "epoch": run.plan.epoch_of(step),
            "step": step,
            "samples": step * run.config.training.global_batch_size,
        },
        # all noise of training is keyed by (seed, step); this is torch's own generator, for whoever uses it
        "rng": {"torch": torch.get_rng_state()},
        "manifest_digest": run.source.digest,
        "left_out": list(run.source.left_out),
        "data": run.source.address,
        "order": sample_order(run),
        "attribute_names": list(run.source.manifest.attribute_names),
        "factor_names": list(run.source.manifest.factor_names),
        "versions": {
            "torch": str(torch.__version__),
            "accelerate": str(accelerate.__version__),
            "numpy": str(np.__version__),
        },
    }


def restore(run: Run, state: dict[str, Any], path: Path) -> None:
    """Continues ``run`` from a checkpoint's contents.

    Raises CheckpointError when it was made with other data or another configuration, naming each difference.
    """
    changed = differences(checkpoint_config(state, path), run.config)
    if changed:
        raise CheckpointError(
            f"{path} was trained with another configuration ({'; '.join(changed)}); train into another --out"
        )
    before, now = str(state.get("order", "planned")), sample_order(run)
    if (before == "planned") != (now == "planned"):
        raise CheckpointError(
            f"{path} was trained in another order of samples ({before}; now {now}): set data.mode as it was, or train "
            "into another --out"
        )
    if state["manifest_digest"] != run.source.digest:
        raise CheckpointError(
            f"{path} was trained on other shards than {run.source.address} (the manifests differ); name the same "
            "shards with --data, or train into another --out"
        )
    if other := refuse_other_shards(state.get("left_out", []), run.source.left_out, str(path)):
        raise CheckpointError(other)
    try:
        run.vlae.load_state_dict(state["model"])
        run.average.module.load_state_dict(state["ema"] or state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"]["torch"])
        run.step = int(state["progress"]["step"])
    except Exception as error:  # torch raises nearly anything on states of another shape
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} does not fit this model: {reason}") from None
