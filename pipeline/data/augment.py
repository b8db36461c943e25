"""From uint8 images on the device to the arguments of the objective: scaled, augmented, corrupted, with their noise."""

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
    """Arguments of the objective for one rank's part of the batch; shapes as in ``Objective.forward``."""

    inputs: Tensor
    target: Tensor
    noise: Tensor
    prior: Tensor


def mirror(images: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
    """Flips each image of (B, C, H, W) left to right with probability 1/2, keyed by (seed, epoch, sample)."""
    chosen = uniform(indices, 1, Stream.FLIP, seed, epoch)[:, 0] < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def warp(images: Tensor, indices: Tensor, config: DataConfig, seed: int, epoch: int) -> Tensor:
    """Bends each image of (B, C, H, W) by a random affine map about its center, keyed by (seed, epoch, sample).

    Where the map reaches over an edge, the image is mirrored at the edge.
    """
    height, width = images.shape[2:]
    draw = normal(indices, 6, Stream.WARP, seed, epoch)
    maps = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    maps[:, :, :2] += config.affine * draw[:, :4].view(-1, 2, 2)
    # affine_grid's images are 2 wide and 2 high
    maps[:, 0, 2] = config.shift * 2 / width * draw[:, 4]
    maps[:, 1, 2] = config.shift * 2 / height * draw[:, 5]
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    warped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def corrupt(images: Tensor, indices: Tensor, config: DenoisingConfig, seed: int, epoch: int) -> Tensor:
    """Adds Gaussian noise to the values of (B, C, H, W) float32 in [−1, 1], and salt and pepper to whole pixels.

    The denoising input of the published code (0.1 and 10 %), keyed by (seed, epoch, sample).
    """
    batch, channels, height, width = images.shape
    if config.gaussian:
        noise = normal(indices, height * width * channels, Stream.DENOISE_GAUSS, seed, epoch)
        noise = noise.view(batch, height, width, channels).permute(0, 3, 1, 2)
        images = images + config.gaussian * noise
    if config.salt_and_pepper:
        draw = uniform(indices, height * width, Stream.DENOISE_MASK, seed, epoch).view(batch, 1, height, width)
        half = config.salt_and_pepper / 2
        images = torch.where(draw < half, -1.0, torch.where(draw > 1 - half, 1.0, images))
    return images


@torch.no_grad()
def prepare_batch(
    batch: Batch, config: Config, latents: int, first_position: int, step: int, epoch: int
) -> BatchInputs:
    """Prepares the images and all random numbers of a step: functions of (seed, step or epoch, position or sample).

    Args:
        batch: This rank's part of the global batch.
        config: The recipe.
        latents: Σd, the latent dimensions of all layers.
        first_position: Position of this rank's first image in the global batch.
        step: The optimizer step, from 0.
        epoch: Its epoch, from 0.
    """
    target = to_float(batch.images)
    if config.data.horizontal_flip:
        target = mirror(target, batch.indices, config.seed, epoch)
    if config.data.shift or config.data.affine:
        target = warp(target, batch.indices, config.data, config.seed, epoch)
    inputs = target
    if config.denoising.gaussian or config.denoising.salt_and_pepper:
        inputs = corrupt(target, batch.indices, config.denoising, config.seed, epoch)
    positions = torch.arange(config.training.global_batch_size, device=target.device)
    local = positions[first_position : first_position + len(target)]
    noise = normal(local, latents, Stream.POSTERIOR, config.seed, step)
    prior = normal(positions, latents, Stream.PRIOR, config.seed, step)
    return BatchInputs(inputs, target, noise, prior)
