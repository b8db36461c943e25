"""What a run consists of: its data, its model and its position, as each rank holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from pipeline.config.schema import Config
from pipeline.data.loader import IndexedLoader, Mode, TrainLoader
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import ShardSource
from pipeline.model.vlae import VLAE
from pipeline.optim.ema import MovingAverage


@dataclass
class RunData:
    """The shards, the order of their samples, and the loaders."""

    source: ShardSource
    mode: Mode
    sampler: GlobalBatchSampler
    train: TrainLoader
    valid: IndexedLoader | None
    """None where the shards have no valid split of at least two images."""
    preview: IndexedLoader
    """The images of the previews: of the valid split where there is one."""


@dataclass
class RunModel:
    """The network in its forms, and its optimizer."""

    vlae: VLAE
    """The network alone; its weights are those of the wrapped objective."""
    objective: nn.Module
    """The VLAE with its loss, wrapped for data parallelism."""
    optimizer: AcceleratedOptimizer
    average: MovingAverage
    """The moving average of the weights."""


@dataclass
class Run:
    """One rank's view of a run."""

    config: Config
    accelerator: Accelerator
    data: RunData
    model: RunModel
    step: int = 0
    """Finished optimizer steps."""
    seconds: float = 0.0
    """Time spent on them, validations and previews included, since the run's first start."""
    growth_steps: int = 0
    """The steps over which the growth of layers was planned: `training.steps` at the first start."""
    resumed_from: str | None = None
    """The file named by --resume that the run started from."""
    changed: dict[str, list[Any]] = field(default_factory=dict)
    """Recipe keys that were changed on resume: [old value, new value]."""
    notes: list[str] = field(default_factory=list)
    """Lines to print once at start."""

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone writes files and prints."""
        return self.accelerator.is_main_process

    @property
    def sample_order(self) -> str:
        """What the order of samples depends on besides the seed and the batch size.

        A streamed split is divided among processes and workers; every other loader follows one global order.
        """
        if self.data.mode != "streamed":
            return "planned"
        return f"streamed by {self.data.sampler.world_size} x {max(1, self.config.data.workers)}"
