"""A picture of what is in the shards: the first samples of each split, which are fair samples of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.decode import Decoder
from preprocess.errors import UnreadableImage
from preprocess.manifest import SPLITS
from preprocess.shardset import ShardError, ShardSet
from preprocess.tar_members import TarDamage, read_members

GAP = 2  # pixels between images; twice that between splits


def contact_sheet(shard_set: ShardSet, columns: int, rows: int) -> Image.Image:
    """A grid of `columns` images, up to `rows` rows for each split that has any, in the order of SPLITS.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    height, width, channels = shard_set.manifest.image_shape
    bands = []
    for split in SPLITS:
        images = list(itertools.islice(_images(shard_set, split), columns * rows))
        if images:
            bands.append(_band(images, columns, height, width, channels))
    if not bands:
        raise ShardError(f"{shard_set.folder} holds no samples")
    gap = np.full((2 * GAP, bands[0].shape[1], channels), 255, np.uint8)
    parts = [part for band in bands for part in (band, gap)][:-1]
    sheet = np.concatenate(parts)
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)


def _band(images: list[np.ndarray], columns: int, height: int, width: int, channels: int) -> np.ndarray:
    """uint8 (h, w, C): the images of one split, in rows."""
    rows = -(-len(images) // columns)
    band = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (GAP + (number // columns) * (height + GAP), GAP + (number % columns) * (width + GAP))
        band[top : top + height, left : left + width] = image
    return band


def _images(shard_set: ShardSet, split: str) -> Iterator[np.ndarray]:
    if shard_set.manifest.codec == "npy":
        for shard in shard_set.images(split):
            yield from shard
        return
    for path in shard_set.shard_paths(split):
        yield from _decoded(path, shard_set.manifest.codec, shard_set.manifest.image_shape)


def _decoded(path: Path, codec: str, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    decoder = Decoder()
    try:
        with path.open("rb") as file:
            for name, content in read_members(file, f".{codec}"):
                if name.endswith(f".{codec}"):
                    yield decoder.rgb(content)[..., : shape[2]].reshape(shape).copy()
    except (OSError, TarDamage, UnreadableImage, ValueError) as error:
        raise ShardError(f"{path} cannot be read ({error}): see `preprocess verify {path.parent}`") from None
