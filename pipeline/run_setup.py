"""Everything a run needs before its first step, built from the configuration and, when resuming, a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from torch import nn

from pipeline.checkpoint import SCHEMA_VERSION, CheckpointError, checkpoint_config
from pipeline.config import Config, ConfigError
from pipeline.feed import MappedFeed, open_region
from pipeline.moving_average import MovingAverage
from pipeline.objective import Objective
from pipeline.run_folder import differences
from pipeline.sample_order import BatchPlan
from pipeline.vlae import VLAE
from preprocess.shardset import ShardError, ShardSet

START_TIMEOUT = timedelta(seconds=300)


@dataclass
class Run:
    """One rank's view of a run; ``step`` counts finished optimizer steps."""

    config: Config
    accelerator: Accelerator
    shards: ShardSet
    plan: BatchPlan
    train_feed: MappedFeed
    valid_feed: MappedFeed | None
    vlae: VLAE
    objective: nn.Module
    """The VLAE with its loss, wrapped for data parallelism."""
    optimizer: AcceleratedOptimizer
    average: MovingAverage
    step: int = 0

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process


def make_accelerator(config: Config, out: Path) -> Accelerator:
    """The process group and precision. Raises ConfigError where the device cannot do what is asked."""
    handlers = [
        InitProcessGroupKwargs(timeout=START_TIMEOUT),
        DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True),
    ]
    try:
        return Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=config.training.mixed_precision,
            log_with=list(config.training.trackers),
            project_dir=str(out),
            kwargs_handlers=handlers,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"training.mixed_precision or training.trackers: {error}") from None


def check_shards(shards: ShardSet, config: Config, rank: int, world_size: int) -> None:
    """Sizes of all shards and, unless told otherwise, the content of this rank's part of them.

    Raises ShardError naming the shard: a tar cut or rotten is otherwise read without a word.
    """
    shards.check_sizes()
    if config.data.verify != "sha256":
        return
    used = [
        shard
        for split in ("train", "valid")
        if split in shards.manifest.splits
        for shard in shards.manifest.splits[split].shards
    ]
    for shard in used[rank::world_size]:
        path = shards.folder / shard.file
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            raise ShardError(
                f"{path} is damaged: its SHA-256 is not the manifest's; delete it and run the same preprocess "
                "command again, which makes only what is missing"
            )


def build_optimizer(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Fused Adam or AdamW. Norms, gates and biases are not decayed; ``rate_scale`` of a group slows wide weights."""
    settings = config.optimizer
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        base = settings.base_fan_in or fan_in
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        grouped.setdefault((min(1.0, base / fan_in), decay), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in grouped.items()
    ]
    kind = torch.optim.AdamW if settings.decoupled_weight_decay else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def build_run(config: Config, accelerator: Accelerator) -> Run:
    """Opens the shards, builds model and optimizer, and wraps them for this number of processes.

    Raises ConfigError, ManifestError, ShardError or FeedError with a sentence for the terminal.
    """
    rank, world_size = accelerator.process_index, accelerator.num_processes
    shards = ShardSet.open(config.data.path)
    check_shards(shards, config, rank, world_size)
    height, width, channels = shape = shards.manifest.image_shape
    set_seed(config.seed)
    vlae = VLAE(config.model, (channels, height, width)).to(accelerator.device)
    vlae = vlae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    objective: nn.Module = Objective(vlae, config.objective, rank, world_size)
    if config.model.norm == "batch" and world_size > 1 and accelerator.device.type == "cuda":
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    train_region = open_region(shards, "train")
    try:
        plan = BatchPlan(len(train_region), config.training.global_batch_size, config.seed, rank, world_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    has_valid = "valid" in shards.manifest.splits and shards.manifest.splits["valid"].samples > 1
    valid_feed = MappedFeed(open_region(shards, "valid"), shape, accelerator.device) if has_valid else None
    average = MovingAverage(vlae)
    prepared, optimizer = accelerator.prepare(objective, build_optimizer(objective, config))
    train_feed = MappedFeed(train_region, shape, accelerator.device)
    return Run(config, accelerator, shards, plan, train_feed, valid_feed, vlae, prepared, optimizer, average)


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
        "manifest_digest": run.shards.digest,
        "data": str(run.shards.folder.resolve()),
        "attribute_names": list(run.shards.manifest.attribute_names),
        "factor_names": list(run.shards.manifest.factor_names),
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
            f"{path} was trained with another configuration ({'; '.join(changed)}); train into another --out, or "
            "start anew with --resume never"
        )
    if state["manifest_digest"] != run.shards.digest:
        raise CheckpointError(
            f"{path} was trained on other shards than {run.shards.folder} (the manifests differ); name the same "
            "shards with --data, or train into another --out"
        )
    try:
        run.vlae.load_state_dict(state["model"])
        run.average.module.load_state_dict(state["ema"] or state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"]["torch"])
        run.step = int(state["progress"]["step"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit this model: {str(error).splitlines()[0]}") from None
