"""Which loader serves which shards on which device, and the loader of a split in memory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import ConfigError, DataConfig
from pipeline.data.batch import Batch, LoaderError, WaitingLoader
from pipeline.data.mapped import MmapLoader, ShardRegion
from pipeline.data.sampler import GlobalBatchSampler
from pipeline.data.shard_reader import ShardSource, load_images
from pipeline.data.streaming import DEFAULT_WINDOW, StreamingLoader

Mode = Literal["mapped", "resident", "streamed"]


class InMemoryLoader(WaitingLoader):
    """Batches of a split that lies on the device as one uint8 array, gathered there without the host."""

    def __init__(self, images: Tensor) -> None:
        """Serves ``images``, (n, H, W, C) uint8 on the device."""
        self.images, self.device, self.samples = images, images.device, len(images)

    def load(self, indices: np.ndarray) -> Batch:
        """Loads the images at ``indices`` (B,) int64 now.

        Raises:
            IndexError: When an index is not in the split.
        """
        chosen = torch.tensor(indices).to(self.device, non_blocking=True)
        flat = self.images.view(self.samples, -1).index_select(0, chosen)
        return Batch(flat.view(len(indices), *self.images.shape[1:]).permute(0, 3, 1, 2), chosen)

    def batches(self, sampler: GlobalBatchSampler, first: int, last: int, prefetch: int) -> Generator[Batch]:
        """Yields the batches of optimizer steps ``first`` … ``last`` − 1. None is made ahead."""
        for step in range(first, last):
            yield self.load(sampler.indices(step))


IndexedLoader = MmapLoader | InMemoryLoader
"""``load`` returns any samples of a split of ``samples`` images at once, for validation and pictures."""
TrainLoader = IndexedLoader | StreamingLoader
"""``batches`` yields this rank's part of one global batch after the other."""


def choose_mode(requested: str, source: ShardSource, device: torch.device) -> Mode:
    """Resolves ``data.mode`` for these shards and this device.

    Raises:
        ConfigError: When the requested mode is not possible.
    """
    mappable = source.local is not None and source.manifest.layout is not None
    if requested == "mapped" and not mappable:
        raise ConfigError(
            f"data.mode=mapped needs npy shards in a folder, and {source.address} is not that; use streamed or resident"
        )
    if requested != "auto":
        return requested  # pyright: ignore[reportReturnType]
    if mappable and device.type == "cuda" and source.split_bytes("train") <= torch.cuda.mem_get_info(device)[0] // 4:
        return "resident"
    return "mapped" if mappable else "streamed"


def open_train_loader(
    data: DataConfig, mode: Mode, source: ShardSource, device: torch.device, ranks: int
) -> TrainLoader:
    """Opens the loader of the train split, for one of ``ranks`` processes.

    Raises:
        LoaderError: When the images cannot be read or do not fit into memory, or there are fewer shards to stream than
            processes.
    """
    if mode != "streamed":
        return open_indexed_loader(source, "train", None, device, mapped=mode == "mapped")
    shards = len(source.shards("train"))
    if shards < ranks:
        raise LoaderError(
            f"{source.address} has {shards} train shards for {ranks} processes, and each streams its own shards: "
            "make more of them (`preprocess … --shard-size`), or train with data.mode=resident or mapped"
        )
    return StreamingLoader(source, data.shuffle_window or DEFAULT_WINDOW, device, data.workers)


def open_indexed_loader(
    source: ShardSource, split: str, limit: int | None, device: torch.device, mapped: bool = True
) -> IndexedLoader:
    """Opens a loader of images that are asked for in any order.

    Args:
        source: The shards.
        split: The split.
        limit: At least so many of its first images are there; None = all.
        device: Device of the batches.
        mapped: Whether shards that can be mapped are; otherwise the images are copied into the device's memory.

    Raises:
        LoaderError: When the images cannot be read, or do not fit into the device's memory.
    """
    if mapped and source.local is not None and source.manifest.layout is not None:
        return MmapLoader(ShardRegion(source.local, split), device)
    try:
        return InMemoryLoader(load_images(source, split, limit).to(device))
    except (MemoryError, RuntimeError) as error:
        raise LoaderError(
            f"the {split} split ({source.split_bytes(split) / 2**30:.1f} GiB) does not fit into the {device.type}'s "
            f"memory: {error}"
        ) from None
