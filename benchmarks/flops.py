"""What a model costs and what a device can do: counted FLOPs an image, and the rate of a large matrix product."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode
from training_loops import seconds_of

from pipeline.config.schema import Config
from pipeline.losses.objective import Objective
from pipeline.model.vlae import VLAE


def flops_per_image(config: Config, image_shape: tuple[int, int, int]) -> float:
    """FLOPs of forward and backward of network and loss for one image of a global batch (a multiply-add is two)."""
    vlae, batch = VLAE(config.model, image_shape), config.training.global_batch_size
    images, latents = torch.zeros(batch, *image_shape), sum(vlae.latent_sizes)
    noise, prior = torch.randn(2, batch, latents)
    with FlopCounterMode(display=False) as counter:
        Objective(vlae, config.objective, 0, 1)(images, images, noise, prior, None).loss.backward()
    return counter.get_total_flops() / batch


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products, the best of three: the peak against which a model's utilisation is stated."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    repeats = 50 if device.type == "cuda" else 10

    def work() -> None:
        for _ in range(repeats):
            a @ b

    work()
    return max(2 * n**3 * repeats / seconds_of(work, device) for _ in range(3))
