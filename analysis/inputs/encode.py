"""Images of a split with their annotations and codes.

Shape letters: n samples, H W C image, d_l latent dimensions of layer l.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.inputs.context import EvalContext, EvalContextError
from pipeline.data.shard_source import ShardSource
from pipeline.data.streaming import load_images
from pipeline.model.pixels import from_array
from pipeline.model.vlae import Posterior
from preprocess.shards.reader import Annotations, ShardSet

BATCH = 128
HELD_OUT = ("valid", "test")


@dataclass(frozen=True)
class Encoded:
    """Images with their annotations and codes, in one order."""

    images: np.ndarray  # uint8 (n, H, W, C)
    annotations: Annotations
    means: list[Tensor]  # (n, d_l) float32 on the CPU, bottom first
    stds: list[Tensor]

    def __len__(self) -> int:
        return len(self.images)


def in_chunks(images: np.ndarray, size: int = 1024) -> Iterator[Tensor]:
    """uint8 (n, H, W, C) as the model takes it, on the CPU, ``size`` at a time: floats take four times as much."""
    for start in range(0, len(images), size):
        yield from_array(images[start : start + size])


@torch.inference_mode()
def encode(context: EvalContext, images: np.ndarray, advance: Callable[[int], None]) -> list[Posterior]:
    """Posterior of each layer, (n, d_l) on the CPU; ``advance(k)`` as k more images are done."""
    parts: list[list[Posterior]] = []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        parts.append(
            [Posterior(q.mean.cpu(), q.std.cpu()) for q in context.vlae.encode(from_array(chunk, context.device))]
        )
        advance(len(chunk))
    layers = zip(*parts, strict=True)
    return [Posterior(torch.cat([q.mean for q in layer]), torch.cat([q.std for q in layer])) for layer in layers]


@torch.inference_mode()
def decode(context: EvalContext, codes: Sequence[Tensor]) -> Tensor:
    """Images (n, C, H, W) float32 in [−1, 1] on the CPU from codes (n, d_l), in batches."""
    parts = [
        context.vlae.decode([z[start : start + BATCH].to(context.device) for z in codes]).cpu()
        for start in range(0, len(codes[0]), BATCH)
    ]
    return torch.cat(parts)


def load_split(shards: ShardSet, split: str, limit: int) -> tuple[np.ndarray, Annotations]:
    """The first ``limit`` images of a split (shards are in random order) and what is known of them."""
    shards.check_content(split, limit)
    annotations = shards.annotations(split, limit)
    if shards.manifest.layout is None:  # compressed members are decoded one by one
        source = ShardSource(str(shards.folder), shards.manifest, shards.digest, shards)
        return load_images(source, split, limit, hashed=False).numpy(), annotations
    parts, missing = [], limit
    for view in shards.images(split):
        parts.append(view[:missing])
        missing -= len(parts[-1])
        if missing <= 0:
            break
    return np.concatenate(parts), annotations


def held_out_count(context: EvalContext, limit: int) -> int:
    """How many images ``held_out`` gives at most."""
    splits = context.shards.manifest.splits
    return min(limit, sum(splits[s].samples for s in HELD_OUT if s in splits))


def held_out(context: EvalContext, limit: int, advance: Callable[[int], None]) -> Encoded:
    """Up to ``limit`` images that training never saw, from the valid and test splits in equal parts, with their codes.

    Raises EvalContextError when there are fewer than 20.
    """
    present = [s for s in HELD_OUT if s in context.shards.manifest.splits and context.shards.manifest.splits[s].samples]
    loaded = [load_split(context.shards, split, limit // len(present)) for split in present]
    if sum(len(images) for images, _ in loaded) < 20:
        raise EvalContextError(
            f"{context.shards.folder} has fewer than 20 held-out images (valid and test): nothing can be measured"
        )
    images = np.concatenate([images for images, _ in loaded])
    notes = [notes for _, notes in loaded]
    annotations = Annotations(
        [key for part in notes for key in part.keys],
        np.concatenate([part.attributes for part in notes]),
        np.concatenate([part.factors for part in notes]),
        np.concatenate([part.identity for part in notes]),
        np.concatenate([part.label for part in notes]),
    )
    return with_codes(context, images, annotations, advance)


def encoded_split(context: EvalContext, split: str, limit: int, advance: Callable[[int], None]) -> Encoded:
    """The first ``limit`` images of one split with their codes."""
    return with_codes(context, *load_split(context.shards, split, limit), advance)


def with_codes(context: EvalContext, images: np.ndarray, notes: Annotations, advance: Callable[[int], None]) -> Encoded:
    """``images`` of the split that ``notes`` annotate, in one order, with their codes."""
    posteriors = encode(context, images, advance)
    return Encoded(images, notes, [q.mean for q in posteriors], [q.std for q in posteriors])
