"""A picture of the first samples of each split. The order in a split is random, so they represent it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from preprocess.errors import ShardError, UnreadableImage, first_line
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import SPLITS, Manifest, Shard
from preprocess.shards.storage import ShardFiles
from preprocess.shards.tar import read_members

GAP = 2  # pixels between images; twice that between splits


def contact_sheet(files: ShardFiles, manifest: Manifest, columns: int, rows: int) -> Image.Image:
    """Draws a grid of `columns` images, up to `rows` rows for each split that has images, in the order of SPLITS.

    Raises:
        ShardError: a shard is missing or damaged.
    """
    height, width, channels = manifest.image_shape
    placed, bottom = [], -GAP  # of each image: its left and upper edge
    for split in SPLITS:
        shards = manifest.splits[split].shards if split in manifest.splits else ()
        images = (image for shard in shards for image in _images(files, manifest, shard))
        top = bottom + 2 * GAP
        for number, image in enumerate(itertools.islice(images, columns * rows)):
            row, column = divmod(number, columns)
            placed.append((image, (GAP + column * (width + GAP), top + row * (height + GAP))))
            bottom = top + (row + 1) * (height + GAP)
    if not placed:
        raise ShardError(f"{files.name} holds no samples")
    sheet = Image.new("L" if channels == 1 else "RGB", (columns * (width + GAP) + GAP, bottom), "white")
    for image, place in placed:
        sheet.paste(Image.fromarray(image[..., 0] if channels == 1 else image), place)
    return sheet


def _images(files: ShardFiles, manifest: Manifest, shard: Shard) -> Iterator[np.ndarray]:
    """Yields uint8 (H, W, C), one at a time. Reads no more of a shard than is needed."""
    decoder, found = Decoder(), 0
    try:
        with files.open(shard.file) as file:
            for name, content in read_members(file, manifest.image_suffix):
                if not name.endswith(manifest.image_suffix):
                    continue
                if manifest.codec == "npy":
                    image = np.load(io.BytesIO(content), allow_pickle=False)
                else:  # the decoder uses its buffer again
                    image = decoder.rgb(content)[..., : manifest.image_shape[2]].copy()
                if image.shape != manifest.image_shape:
                    raise UnreadableImage(f"{name} is {image.shape}, not {manifest.image_shape}")
                found += 1
                yield image
        if found != shard.samples:
            raise UnreadableImage(f"{found:,} samples where the manifest says {shard.samples:,}")
    except Exception as error:  # a damaged tar or image, or an error of the library behind a URL
        raise ShardError(
            f"{files.name}/{shard.file} cannot be read ({first_line(error)}): see `preprocess verify {files.name}`"
        ) from None
