"""A picture of the first samples of each split. The order in a split is random, so they represent it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from preprocess.errors import ShardError, UnreadableImage, first_line
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import SPLITS, Manifest, Shard, SplitName
from preprocess.shards.storage import ShardFiles
from preprocess.shards.tar import read_members

GAP = 2  # pixels between images; twice that between splits


def contact_sheet(files: ShardFiles, manifest: Manifest, columns: int, rows: int) -> Image.Image:
    """Draws a grid of `columns` images, up to `rows` rows for each split that has images, in the order of SPLITS.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    height, width, channels = manifest.image_shape
    bands = []
    for split in SPLITS:
        images = list(itertools.islice(_images(files, manifest, split), columns * rows))
        if images:
            bands.append(_band(images, columns, height, width, channels))
    if not bands:
        raise ShardError(f"{files.name} holds no samples")
    gap = np.full((2 * GAP, bands[0].shape[1], channels), 255, np.uint8)
    parts = [part for band in bands for part in (band, gap)][:-1]
    sheet = np.concatenate(parts)
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)


def _band(images: list[np.ndarray], columns: int, height: int, width: int, channels: int) -> np.ndarray:
    """Returns the images of one split, in rows: uint8 (h, w, C)."""
    rows = -(-len(images) // columns)
    band = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (GAP + (number // columns) * (height + GAP), GAP + (number % columns) * (width + GAP))
        band[top : top + height, left : left + width] = image
    return band


def _images(files: ShardFiles, manifest: Manifest, split: SplitName) -> Iterator[np.ndarray]:
    """Yields uint8 (H, W, C), one at a time. Reads no more of a shard than is needed."""
    shards = manifest.splits[split].shards if split in manifest.splits else ()
    for shard in shards:
        try:
            yield from _images_of(files, manifest, shard)
        except Exception as error:  # a damaged tar or image, or an error of the library behind a URL
            raise ShardError(
                f"{files.name}/{shard.file} cannot be read ({first_line(error)}): see `preprocess verify {files.name}`"
            ) from None


def _images_of(files: ShardFiles, manifest: Manifest, shard: Shard) -> Iterator[np.ndarray]:
    ending = manifest.image_suffix
    decoder, found = Decoder(), 0
    with files.open(shard.file) as file:
        for name, content in read_members(file, ending):
            if not name.endswith(ending):
                continue
            image = _pixels(decoder, content, manifest)
            if image.shape != manifest.image_shape:
                raise UnreadableImage(f"{name} is {image.shape}, not {manifest.image_shape}")
            found += 1
            yield image
    if found != shard.samples:
        raise UnreadableImage(f"{found:,} samples where the manifest says {shard.samples:,}")


def _pixels(decoder: Decoder, content: bytes, manifest: Manifest) -> np.ndarray:
    if manifest.codec == "npy":
        return np.load(io.BytesIO(content), allow_pickle=False)
    return decoder.rgb(content)[..., : manifest.image_shape[2]].copy()  # the decoder uses its buffer again
