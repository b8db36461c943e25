"""Builds everything that a run needs before its first step."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from pipeline.config.schema import Config, ConfigError
from pipeline.data.loader import choose_mode, open_indexed_loader, open_train_loader
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_checks import usable_shards
from pipeline.data.shard_reader import ShardSource, open_source
from pipeline.data.streaming import StreamingLoader
from pipeline.distributed.consistency import check_ranks_match, run_fingerprint
from pipeline.distributed.setup import compile_vlae
from pipeline.losses.objective import Objective
from pipeline.model.vlae import VLAE
from pipeline.optim.ema import MovingAverage
from pipeline.optim.optimizer import build_optimizer
from pipeline.run.state import Run, RunData, RunModel
from pipeline.training.previews import RECONSTRUCTIONS


def batch_norm_note(run: Run) -> list[str]:
    """Returns a warning where BatchNorm would see only the rank's part of the batch."""
    if run.config.model.norm != "batch" or run.data.sampler.world_size == 1 or run.accelerator.device.type == "cuda":
        return []
    return [
        "warning: BatchNorm on CPU processes sees each process's part of the batch only, so this run depends on their "
        "number; model.norm=group does not, and GPUs synchronize it"
    ]


def make_sampler(config: Config, source: ShardSource, rank: int, world_size: int) -> GlobalBatchSampler:
    """Fixes the order of samples.

    Raises:
        ConfigError: When the train split is empty, or the batches cannot be made of it.
    """
    counts = tuple(shard.samples for shard in source.shards("train"))
    if not counts:
        raise ConfigError(f"{source.address} has no images in its train split")
    batch, window = config.training.global_batch_size, config.data.shuffle_window
    try:
        return GlobalBatchSampler(sum(counts), batch, config.seed, rank, world_size, window, counts if window else ())
    except ValueError as error:
        raise ConfigError(str(error)) from None


def describe_loader(run: Run) -> str:
    """Returns one line on where the images come from."""
    size = f"{run.data.source.split_bytes('train') / 2**30:.2f} GiB of pixels"
    where = {"mapped": "mapped from", "resident": f"resident on the {run.accelerator.device.type}, read from"}
    return f"images: {size}, {where.get(run.data.mode, 'streamed from')} {run.data.source.address}"


def build_run(config: Config, accelerator: Accelerator, allow_pipe: bool = False) -> Run:
    """Opens the shards, builds model and optimizer, and wraps them for this number of processes.

    Raises:
        UserError: A ConfigError, ManifestError, ShardError, LoaderError or RankMismatchError with one sentence.
    """
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if accelerator.device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # what autocast leaves in float32; convolutions have it so
    source = open_source(config.data.path, allow_pipe)
    check_ranks_match(run_fingerprint(config, source.digest))  # before anything that would hang on ranks that differ
    source, notes = usable_shards(source, config.data, rank, world_size)
    sampler = make_sampler(config, source, rank, world_size)
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
        valid_loader = open_indexed_loader(source, "valid", limit, accelerator.device)
    if isinstance(train_loader, StreamingLoader):
        preview_loader = valid_loader or open_indexed_loader(source, "train", RECONSTRUCTIONS, accelerator.device)
    else:
        preview_loader = valid_loader or train_loader
    average = MovingAverage(vlae)
    if config.training.compile == "always" or (config.training.compile == "auto" and accelerator.device.type == "cuda"):
        compile_vlae(vlae)
    prepared, optimizer = accelerator.prepare(objective, build_optimizer(objective, config))
    data = RunData(source, mode, sampler, train_loader, valid_loader, preview_loader)
    model = RunModel(vlae, prepared, optimizer, average)
    return Run(config, accelerator, data, model, notes=notes, growth_steps=config.training.steps)
