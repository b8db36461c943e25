"""Images of a split with their annotations and codes.

A report loads and encodes each split once (`encode_splits`) and passes the result to every measure.
Shape letters: n samples, H W C image, d_l latent dimensions of layer l (0 = bottom).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.inputs.context import EvalContext, EvalContextError, Progress
from pipeline.data.shard_reader import ShardSource, load_images
from pipeline.model.pixels import from_array
from pipeline.model.vlae import VLAE
from pipeline.training.threads import AdaptiveThreads
from preprocess.shards.reader import Annotations, ShardSet

BATCH = 128
HELD_OUT = ("valid", "test")
TRAIN_IMAGES = 10_000  # with more, scores of probes and classifiers hardly improve
MIN_HELD_OUT = 4  # with fewer images no figure has an interval


@dataclass(frozen=True)
class Encoded:
    """Images with their annotations and codes, in one order."""

    images: np.ndarray  # uint8 (n, H, W, C)
    annotations: Annotations
    means: list[Tensor]  # (n, d_l) float32 on the CPU, bottom first
    stds: list[Tensor]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def part(self, indices: slice) -> Encoded:
        """Some of the images, without a copy."""
        annotations = Annotations(*(column[indices] for column in _columns(self.annotations)))
        means, stds = ([z[indices] for z in codes] for codes in (self.means, self.stds))
        return Encoded(self.images[indices], annotations, means, stds)


@dataclass(frozen=True)
class EncodedSplits:
    """What a report measures: training images and held-out ones, each loaded and encoded once."""

    train: Encoded
    held_out: Encoded
    held_out_is_train: bool = False
    """The shards hold no held-out images: `held_out` is the second half of the training images."""


def in_chunks(images: np.ndarray) -> Iterator[Tensor]:
    """Converts uint8 (n, H, W, C) for the model, on the CPU, in batches: floats take four times as much memory."""
    for start in range(0, len(images), BATCH):
        yield from_array(images[start : start + BATCH])


@cache
def threads_of(device: torch.device) -> AdaptiveThreads:
    """What adapts the number of CPU threads between batches, so that a busy machine does not stop a report."""
    return AdaptiveThreads(device)


@torch.inference_mode()
def encode(
    context: EvalContext, images: np.ndarray, annotations: Annotations, advance: Callable[[int], None]
) -> Encoded:
    """Encodes images.

    Args:
        context: the model and its device.
        images: uint8 (n, H, W, C).
        annotations: of these images.
        advance: called with the number of images finished since the last call.
    """
    means, stds = [], []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        with threads_of(context.device).step(), context.autocast():
            posteriors = context.vlae.encode(from_array(chunk, context.device))
            means.append([q.mean.cpu() for q in posteriors])
            stds.append([q.std.cpu() for q in posteriors])
        advance(len(chunk))
    joined = ([torch.cat(layer) for layer in zip(*batches, strict=True)] for batches in (means, stds))
    return Encoded(images, annotations, *joined)


@torch.inference_mode()
def decode_codes(vlae: VLAE, codes: Sequence[Tensor]) -> Tensor:
    """Decodes codes (n, d_l), bottom first, in batches on the model's device: (n, C, H, W) in [−1, 1] on the CPU."""
    device = next((p.device for p in vlae.parameters()), torch.device("cpu"))
    parts = []
    for start in range(0, len(codes[0]), BATCH):
        with threads_of(device).step():
            parts.append(vlae.decode([z[start : start + BATCH].to(device) for z in codes]).cpu())
    return torch.cat(parts)


def decode_to_measure(context: EvalContext, codes: Sequence[Tensor]) -> Tensor:
    """``decode_codes`` in the precision of measurements, which is faster than that of pictures to look at."""
    with context.autocast():
        return decode_codes(context.vlae, codes)


def load_split(shards: ShardSet, split: str, limit: int) -> tuple[np.ndarray, Annotations]:
    """Loads the first `limit` images of a split, uint8 (n, H, W, C), and their annotations.

    Shards are in random order, so the first images are a random sample.

    Raises:
        ShardError: a shard is damaged.
    """
    shards.check_content(split, limit)
    annotations = shards.annotations(split, limit)
    if shards.manifest.layout is None:  # compressed members are decoded one at a time
        source = ShardSource(str(shards.folder), shards.manifest, shards.digest, shards)
        return load_images(source, split, limit).numpy(), annotations
    parts, missing = [], limit
    for view in shards.images(split):
        parts.append(view[:missing])
        missing -= len(parts[-1])
        if missing <= 0:
            break
    return np.concatenate(parts), annotations


def split_size(shards: ShardSet, *splits: str) -> int:
    """Number of images in these splits together; a split that is absent has none."""
    present = shards.manifest.splits
    return sum(present[split].samples for split in splits if split in present)


def held_out(context: EvalContext, limit: int, progress: Progress) -> Encoded:
    """Up to `limit` images that training never saw, from the valid and test splits in equal parts, with their codes.

    Raises:
        EvalContextError: there are fewer than MIN_HELD_OUT.
        ShardError: a shard is damaged.
    """
    present = [split for split in HELD_OUT if split_size(context.shards, split)]
    if split_size(context.shards, *present) < MIN_HELD_OUT:
        raise EvalContextError(
            f"{context.shards.folder} has fewer than {MIN_HELD_OUT} held-out images (valid and test): nothing can be "
            "measured; name shards with a valid split with --data"
        )
    loaded = [load_split(context.shards, split, max(1, limit // len(present))) for split in present]
    images = np.concatenate([images for images, _ in loaded])
    keys = [key for _, annotations in loaded for key in annotations.keys]
    columns = zip(*(_columns(annotations)[1:] for _, annotations in loaded), strict=True)
    advance = progress("codes of held-out images", len(images))
    return encode(context, images, Annotations(keys, *map(np.concatenate, columns)), advance)


def encoded_split(context: EvalContext, split: str, limit: int, progress: Progress) -> Encoded:
    """The first `limit` images of one split with their codes."""
    advance = progress(f"codes of {split} images", min(limit, split_size(context.shards, split)))
    return encode(context, *load_split(context.shards, split, limit), advance)


def encode_splits(context: EvalContext, limit: int, progress: Progress) -> EncodedSplits:
    """Loads and encodes up to TRAIN_IMAGES training images and up to `limit` held-out ones.

    Where there are fewer than MIN_HELD_OUT held-out images, the second half of the training images takes their place.

    Raises:
        EvalContextError: there is no train split, or it is too small.
        ShardError: a shard is damaged.
    """
    shards = context.shards
    if not split_size(shards, "train"):
        raise EvalContextError(
            f"{shards.folder} has no train split, with which a report compares: `analysis probe` does without"
        )
    if min(limit, split_size(shards, *HELD_OUT)) >= MIN_HELD_OUT:
        train = encoded_split(context, "train", TRAIN_IMAGES, progress)
        return EncodedSplits(train, held_out(context, limit, progress))
    everything = encoded_split(context, "train", min(TRAIN_IMAGES, 2 * limit), progress)
    middle = len(everything) // 2
    if middle < MIN_HELD_OUT:
        raise EvalContextError(f"{shards.folder} has {len(everything)} images: too few to measure anything")
    return EncodedSplits(everything.part(slice(0, middle)), everything.part(slice(middle, None)), True)


def _columns(annotations: Annotations) -> tuple[Any, ...]:
    return tuple(getattr(annotations, field.name) for field in fields(annotations))
