"""From uint8 images on the device to what the objective takes: augmented, normalized, corrupted, with its noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import Config, DataConfig, DenoisingConfig
from pipeline.data.batch import Batch
from pipeline.data.counter_rng import Stream, normal, uniform
from pipeline.model.pixels import to_float


class BatchInputs(NamedTuple):
    """Arguments of the objective for one rank's rows; shapes as in ``Objective.forward``."""

    inputs: Tensor
    target: Tensor
    noise: Tensor
    prior: Tensor


def mirror(images: Tensor, rows: Tensor, seed: int, epoch: int) -> Tensor:
    """Each image of (B, C, H, W) flipped left to right with probability 1/2, keyed by (seed, epoch, sample)."""
    chosen = uniform(rows, 1, Stream.FLIP, seed, epoch)[:, 0] < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def warp(images: Tensor, rows: Tensor, config: DataConfig, seed: int, epoch: int) -> Tensor:
    """Each image of (B, C, H, W) under a random affine map about its center, keyed by (seed, epoch, sample).

    What comes in over an edge is mirrored there.
    """
    height, width = images.shape[2:]
    draw = normal(rows, 6, Stream.WARP, seed, epoch)
    maps = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    maps[:, :, :2] += config.affine * draw[:, :4].view(-1, 2, 2)
    # affine_grid's images are 2 wide and 2 high
    maps[:, 0, 2] = config.shift * 2 / width * draw[:, 4]
    maps[:, 1, 2] = config.shift * 2 / height * draw[:, 5]
    places = F.affine_grid(maps, list(images.shape), align_corners=False)
    warped = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def corrupt(images: Tensor, rows: Tensor, config: DenoisingConfig, seed: int, epoch: int) -> Tensor:
    """Salt-and-pepper on whole pixels and Gaussian noise on values of (B, C, H, W) float32 in [−1, 1].

    The published code's denoising input (10 % and 0.1), keyed by (seed, epoch, sample).
    """
    batch, channels, height, width = images.shape
    if config.gaussian:
        noise = normal(rows, height * width * channels, Stream.DENOISE_GAUSS, seed, epoch)
        noise = noise.view(batch, height, width, channels).permute(0, 3, 1, 2)
        images = images + config.gaussian * noise
    if config.salt_and_pepper:
        draw = uniform(rows, height * width, Stream.DENOISE_MASK, seed, epoch).view(batch, 1, height, width)
        half = config.salt_and_pepper / 2
        images = torch.where(draw < half, -1.0, torch.where(draw > 1 - half, 1.0, images))
    return images


@torch.no_grad()
def prepare_batch(batch: Batch, config: Config, latents: int, first_row: int, step: int, epoch: int) -> BatchInputs:
    """Everything random of optimizer step ``step``, as functions of (seed, step or epoch, position or sample).

    ``first_row`` is the position of this rank's rows in the global batch; ``latents`` = Σd.
    """
    target = to_float(batch.images)
    if config.data.horizontal_flip:
        target = mirror(target, batch.indices, config.seed, epoch)
    if config.data.shift or config.data.affine:
        target = warp(target, batch.indices, config.data, config.seed, epoch)
    inputs = corrupt(target, batch.indices, config.denoising, config.seed, epoch)
    positions = torch.arange(config.training.global_batch_size, device=target.device)
    own = positions[first_row : first_row + len(target)]
    noise = normal(own, latents, Stream.POSTERIOR, config.seed, step)
    prior = normal(positions, latents, Stream.PRIOR, config.seed, step)
    return BatchInputs(inputs, target, noise, prior)
