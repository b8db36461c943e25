"""Which feed serves which shards on which device."""

from __future__ import annotations

from typing import Literal

import torch

from pipeline.config.schema import ConfigError, DataConfig
from pipeline.data.in_memory import InMemoryLoader
from pipeline.data.mapped import IndexedLoader, LoaderError, MmapLoader, open_region
from pipeline.data.shard_source import ShardSource
from pipeline.data.streaming import DEFAULT_WINDOW, StreamingLoader, load_images

Mode = Literal["mapped", "resident", "streamed"]


def split_bytes(source: ShardSource, split: str) -> int:
    """Bytes of a split's pixels."""
    height, width, channels = source.manifest.image_shape
    return sum(shard.samples for shard in source.shards(split)) * height * width * channels


def choose_mode(asked: str, source: ShardSource, device: torch.device) -> Mode:
    """What ``data.mode`` means here. Raises ConfigError where it cannot be done."""
    mappable = source.local is not None and source.manifest.layout is not None
    if asked == "mapped" and not mappable:
        raise ConfigError(
            f"data.mode=mapped needs npy shards in a folder, and {source.address} is not that; use streamed or resident"
        )
    if asked != "auto":
        return asked  # pyright: ignore[reportReturnType]
    if mappable and device.type == "cuda" and split_bytes(source, "train") <= torch.cuda.mem_get_info(device)[0] // 4:
        return "resident"
    return "mapped" if mappable else "streamed"


def open_train_loader(
    data: DataConfig, mode: Mode, source: ShardSource, device: torch.device, ranks: int
) -> MmapLoader | InMemoryLoader | StreamingLoader:
    """The feed of the train split. Raises LoaderError."""
    hashed = data.verify == "sha256"
    if mode == "streamed":
        shards = len(source.shards("train"))
        if shards < ranks:
            raise LoaderError(
                f"{source.address} has {shards} train shards for {ranks} processes, and each streams shards of its "
                "own: make more of them (`preprocess … --shard-size`), or train with data.mode=resident or mapped"
            )
        return StreamingLoader(source, data.shuffle_window or DEFAULT_WINDOW, hashed, device, data.workers)
    if mode == "resident":
        return _resident(source, "train", split_bytes(source, "train"), hashed, device)
    assert source.local is not None
    return MmapLoader(open_region(source.local, "train"), source.manifest.image_shape, device)


def open_indexed_loader(
    data: DataConfig, source: ShardSource, split: str, limit: int, device: torch.device
) -> IndexedLoader:
    """A feed of the first ``limit`` images of a split, or of more, in any order. Raises LoaderError."""
    if source.local is not None and source.manifest.layout is not None:
        return MmapLoader(open_region(source.local, split), source.manifest.image_shape, device)
    return _resident(source, split, limit, data.verify == "sha256", device)


def _resident(source: ShardSource, split: str, limit: int, hashed: bool, device: torch.device) -> InMemoryLoader:
    """Raises LoaderError, also when the images do not fit."""
    try:
        return InMemoryLoader(load_images(source, split, limit, hashed).to(device))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, LoaderError):
            raise
        size = f"{split_bytes(source, split) / 2**30:.1f} GiB"
        raise LoaderError(f"the {split} split ({size}) does not fit into the {device.type}'s memory: {error}") from None
