"""What is analyzed: a checkpoint's model beside the shards it is shown, and the codes of held-out images.

Shape letters: n samples, H W C image, d latent dimensions of a layer, A attributes, F factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.checkpoint.file import load_vlae
from pipeline.config.schema import Config
from pipeline.data.shard_source import ShardSource
from pipeline.data.streaming import load_images
from pipeline.model.pixels import from_array
from pipeline.model.vlae import VLAE, Posterior
from preprocess.shards.reader import Annotations, ShardSet

Say = Callable[[str, int], Callable[[int], None]]
"""(what is being done, how many units it takes) -> a function that reports finished units."""

BATCH = 128
HELD_OUT = ("valid", "test")


class EvalContextError(ValueError):
    """The checkpoint and the shards cannot be analyzed together; the message is one sentence for the terminal."""


@dataclass(frozen=True)
class EvalContext:
    """A trained ladder and the shards to look at it with."""

    path: Path
    vlae: VLAE
    config: Config
    state: dict[str, Any]
    shards: ShardSet
    device: torch.device

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent dimensions of each layer, bottom first."""
        return self.vlae.latent_sizes

    @property
    def step(self) -> int:
        return int(self.state["progress"]["step"])


def open_model(path: Path) -> tuple[VLAE, Config, dict[str, Any], torch.device]:
    """The model of a checkpoint on the best device here. Raises CheckpointError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vlae, config, state = load_vlae(path, device)
    return vlae, config, state, device


def open_shards(state: dict[str, Any], data: Path | None) -> tuple[ShardSet, str | None]:
    """The shards to use and, where they are not those trained on, a warning.

    ``data`` None means the folder that the checkpoint names; it must then still hold the same shards. Raises
    ManifestError, or EvalContextError when it holds others, or images of another shape.
    """
    shards = ShardSet.open(data or Path(state.get("data") or "shards"))
    channels, height, width = state["image_shape"]
    if shards.manifest.image_shape != (height, width, channels):
        shape = "x".join(map(str, shards.manifest.image_shape))
        raise EvalContextError(
            f"{shards.folder} holds images of {shape} (height x width x channels), the model was trained on "
            f"{height}x{width}x{channels}; name shards of that size with --data"
        )
    if shards.digest == state["manifest_digest"]:
        return shards, None
    if data is None:
        raise EvalContextError(
            f"{shards.folder} no longer holds the shards that the checkpoint was trained on; name shards with --data"
        )
    return shards, f"{shards.folder} is not what the checkpoint was trained on: 'held-out' rests on your word"


def open_context(path: Path, data: Path | None) -> tuple[EvalContext, list[str]]:
    """A checkpoint with its shards, and warnings to say. Raises what ``open_model`` and ``open_shards`` raise."""
    vlae, config, state, device = open_model(path)
    shards, warning = open_shards(state, data)
    shards.check_sizes()
    return EvalContext(path, vlae, config, state, shards, device), [warning] if warning else []


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
def encode(subject: EvalContext, images: np.ndarray, advance: Callable[[int], None]) -> list[Posterior]:
    """Posterior of each layer, (n, d_l) on the CPU; ``advance(k)`` as k more images are done."""
    parts: list[list[Posterior]] = []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        parts.append(
            [Posterior(q.mean.cpu(), q.std.cpu()) for q in subject.vlae.encode(from_array(chunk, subject.device))]
        )
        advance(len(chunk))
    layers = zip(*parts, strict=True)
    return [Posterior(torch.cat([q.mean for q in layer]), torch.cat([q.std for q in layer])) for layer in layers]


@torch.inference_mode()
def decode(subject: EvalContext, codes: Sequence[Tensor]) -> Tensor:
    """Images (n, C, H, W) float32 in [−1, 1] on the CPU from codes (n, d_l), in batches."""
    parts = [
        subject.vlae.decode([z[start : start + BATCH].to(subject.device) for z in codes]).cpu()
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


def held_out_count(subject: EvalContext, limit: int) -> int:
    """How many images ``held_out`` gives at most."""
    splits = subject.shards.manifest.splits
    return min(limit, sum(splits[s].samples for s in HELD_OUT if s in splits))


def held_out(subject: EvalContext, limit: int, advance: Callable[[int], None]) -> Encoded:
    """Up to ``limit`` images that training never saw, from the valid and test splits in equal parts, with their codes.

    Raises EvalContextError when there are fewer than 20.
    """
    present = [s for s in HELD_OUT if s in subject.shards.manifest.splits and subject.shards.manifest.splits[s].samples]
    loaded = [load_split(subject.shards, split, limit // len(present)) for split in present]
    if sum(len(images) for images, _ in loaded) < 20:
        raise EvalContextError(
            f"{subject.shards.folder} has fewer than 20 held-out images (valid and test): nothing can be measured"
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
    return with_codes(subject, images, annotations, advance)


def encoded_split(subject: EvalContext, split: str, limit: int, advance: Callable[[int], None]) -> Encoded:
    """The first ``limit`` images of one split with their codes."""
    return with_codes(subject, *load_split(subject.shards, split, limit), advance)


def with_codes(subject: EvalContext, images: np.ndarray, notes: Annotations, advance: Callable[[int], None]) -> Encoded:
    """``images`` of the split that ``notes`` annotate, in one order, with their codes."""
    posteriors = encode(subject, images, advance)
    return Encoded(images, notes, [q.mean for q in posteriors], [q.std for q in posteriors])
