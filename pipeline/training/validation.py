"""Validation during training: the averaged model on held-out images, the same figures on any number of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.config.schema import Config
from pipeline.data.counter_rng import Stream, normal
from pipeline.data.loader import IndexedLoader
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import unbiased_mmd
from pipeline.model.latents import layer_effects, split_layers
from pipeline.model.pixels import to_float
from pipeline.model.vlae import VLAE

BATCH = 128
MMD_SAMPLES = 4096  # enough of the valid split for three digits
EFFECT_SAMPLES = 256


def _sum_over_ranks(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


@torch.no_grad()
def validate(vlae: VLAE, loader: IndexedLoader, config: Config, rank: int, world_size: int) -> dict[str, Any]:
    """Measures ``vlae`` (in eval mode) on the valid split. Every rank must call it and gets the same answer.

    Returns:
        ``samples``; ``l1`` and ``mse`` of values in [−1, 1]; ``psnr`` in dB; ``mmd``, unbiased, for each layer;
        ``effect`` of each layer, see ``layer_effects``.
    """
    count = min(loader.samples, config.training.validation_samples)
    sizes, total = vlae.latent_sizes, sum(vlae.latent_sizes)
    codes = torch.zeros(min(count, MMD_SAMPLES), total, device=loader.device)
    sums = torch.zeros(2, dtype=torch.float64, device=loader.device)
    batches = range(0, count, BATCH)
    for start in batches[rank::world_size]:
        batch = loader.load(np.arange(start, min(start + BATCH, count)))
        images = to_float(batch.images)
        with torch.autocast(loader.device.type, torch.bfloat16, enabled=config.training.mixed_precision == "bf16"):
            posteriors = vlae.encode(images)
            output = vlae.decode([q.mean for q in posteriors])
        sums[0] += (output - images).abs().mean(dtype=torch.float64) * len(images)
        sums[1] += ((output - images) ** 2).mean(dtype=torch.float64) * len(images)
        noise = split_layers(normal(batch.indices, total, Stream.POSTERIOR, config.seed, -1), sizes)
        latents = torch.cat([q.sample(eps) for q, eps in zip(posteriors, noise, strict=True)], dim=1)
        slots = codes[start : start + len(latents)]
        slots.copy_(latents[: len(slots)])
    sums, codes = _sum_over_ranks(sums), _sum_over_ranks(codes)  # each row was written by one rank
    l1, mse = (sums / count).tolist()
    prior = normal(torch.arange(len(codes), device=loader.device), total, Stream.EFFECT, config.seed)
    layers = list(zip(split_layers(codes, sizes), split_layers(prior, sizes), sizes, strict=True))
    mmd = [float(unbiased_mmd(z, p, make_kernel(config.objective.kernel, d))) for z, p, d in layers]
    few = slice(0, EFFECT_SAMPLES)
    effect = layer_effects(vlae, [z[few] for z, _, _ in layers], [p[few] for _, p, _ in layers])
    return {
        "samples": count,
        "l1": l1,
        "mse": mse,
        "psnr": 10 * float(np.log10(4 / max(mse, 1e-12))),
        "mmd": mmd,
        "effect": effect.tolist(),
    }
