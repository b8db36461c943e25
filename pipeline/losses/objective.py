"""The training objective: reconstruction + Σ_l MMD(q(z_l), p(z_l)) (paper, section 2.4), as one module.

Model and loss are one module, so that DistributedDataParallel sees a single forward pass with the collective on the
latents inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.schema import ConfigError, ObjectiveConfig
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import local_mmd
from pipeline.model.vlae import VLAE, Posterior


class Losses(NamedTuple):
    """The losses of one rank. All but ``loss`` are shares: their sums over ranks are the values of the batch."""

    loss: Tensor
    """(), the source of this rank's gradient."""
    reconstruction: Tensor
    """() share of the mean reconstruction error, with weight 1."""
    regularizer: Tensor
    """(L,) shares of each layer's unbiased MMD² or KL in nats, with weight 1."""


def reconstruction_loss(output: Tensor, target: Tensor, kind: str) -> Tensor:
    """Returns the mean |difference| (l1, Laplace) or squared difference (l2, Gaussian) over all values: ()."""
    return F.l1_loss(output, target) if kind == "l1" else F.mse_loss(output, target)


def laplacian_band_count(height: int, width: int) -> int:
    """Counts the bands of an image's Laplacian pyramid. It is halved while both sides are even, down to 8."""
    count = 0
    while min(height, width) >= 8:
        count += 1
        if height // 2 % 2 or width // 2 % 2:
            break
        height, width = height // 2, width // 2
    return count


def laplacian_loss(output: Tensor, target: Tensor, kind: str, weights: Sequence[float] = ()) -> Tensor:
    """Returns the reconstruction loss on the bands of a Laplacian pyramid (Burt and Adelson 1983).

    A flat patch of background or skin vanishes from a band-pass image. So small features, an eye or a mouth, count here
    for more than the share of pixels that they cover.

    Args:
        output: (B, C, H, W).
        target: (B, C, H, W).
        kind: See ``reconstruction_loss``.
        weights: Of each band's error, finest band first.

    Returns:
        (), the weighted sum of the bands' errors; their mean where there are no weights.
    """
    difference = output - target
    errors: list[Tensor] = []
    for _ in range(laplacian_band_count(*difference.shape[-2:])):
        low = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(low, size=difference.shape[-2:], mode="bilinear", align_corners=False)
        errors.append(reconstruction_loss(band, torch.zeros_like(band), kind))
        difference = low
    if not errors:
        return difference.new_zeros(())
    if not weights:
        return torch.stack(errors).mean()
    return sum((w * error for w, error in zip(weights, errors, strict=False)), start=difference.new_zeros(()))


def kl_to_prior(posterior: Posterior) -> Tensor:
    """Returns KL(N(mean, std²) ‖ N(0, I)) in nats, (B,): summed over dimensions (Kingma and Welling 2014, app. B)."""
    mean, std = posterior
    return 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum(1)


def gather_rows(local: Tensor) -> Tensor:
    """Gathers the (n_local, d) rows of all ranks, in the order of ranks, without gradient: (n, d)."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local.detach()
    world_size = dist.get_world_size()
    gathered = local.new_empty((world_size * local.shape[0], *local.shape[1:]))
    dist.all_gather_into_tensor(gathered, local.detach().contiguous())
    return gathered


class Objective(nn.Module):
    """A VLAE with its loss. Each rank calls it with its part of the global batch."""

    def __init__(self, vlae: VLAE, config: ObjectiveConfig, rank: int, world_size: int) -> None:
        """Wraps ``vlae``.

        Raises:
            ConfigError: ``laplacian_band_weights`` has more weights than images of this size have bands.
        """
        super().__init__()
        bands = laplacian_band_count(*vlae.image_shape[1:])
        if len(config.laplacian_band_weights) > bands:
            raise ConfigError(
                f"objective.laplacian_band_weights: {len(config.laplacian_band_weights)} weights, but images of "
                f"{vlae.image_shape[1]}x{vlae.image_shape[2]} have {bands} bands; leave out the last weights"
            )
        self.vlae = vlae
        self.config = config
        self.rank, self.world_size = rank, world_size
        self.kernels = [make_kernel(config.kernel, d) for d in vlae.latent_sizes]

    def forward(
        self, inputs: Tensor, target: Tensor, noise: Tensor, prior: Tensor, fade: Sequence[float] | None
    ) -> Losses:
        """Returns the losses of this rank's part of the batch.

        Args:
            inputs: (B_local, C, H, W) in [−1, 1], what the encoder sees.
            target: (B_local, C, H, W) in [−1, 1], what the decoder should return.
            noise: (B_local, Σd) float32 ~ N(0, 1) of the posterior samples, columns in the order of layers.
            prior: (B_global, Σd) float32 ~ N(0, 1), the prior samples of the MMD.
            fade: See ``VLAE.decode``.
        """
        sizes = list(self.vlae.latent_sizes)
        posteriors = self.vlae.encode(inputs)
        latents = [q.sample(eps) for q, eps in zip(posteriors, noise.split(sizes, dim=1), strict=True)]
        output = self.vlae.decode(latents, fade)
        with torch.autocast(inputs.device.type, enabled=False):
            config = self.config
            error = reconstruction_loss(output, target, config.reconstruction)
            reconstruction = config.reconstruction_weight * error
            if config.laplacian_weight:
                detail = laplacian_loss(output, target, config.reconstruction, config.laplacian_band_weights)
                reconstruction = reconstruction + config.reconstruction_weight * config.laplacian_weight * detail
            shares, logged = self._regularizer(posteriors, latents, prior)
        # DDP averages gradients over ranks. The mean of local means is the mean of the batch, because all ranks have
        # equally many images. The shares of the MMD must be summed instead, hence the world size.
        loss = reconstruction + config.regularizer_weight * self.world_size * shares.sum()
        return Losses(loss, error.detach() / self.world_size, logged.detach())

    def _regularizer(
        self, posteriors: Sequence[Posterior], latents: Sequence[Tensor], prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns (L,) shares with gradient, and (L,) shares for the log."""
        sizes = list(self.vlae.latent_sizes)
        if self.config.regularizer == "kl":
            shares = torch.stack([kl_to_prior(q).mean() for q in posteriors]) / self.world_size
            return shares, shares
        joined = torch.cat([z.float() for z in latents], dim=1)
        gathered = gather_rows(joined)
        first_position = self.rank * len(joined)
        columns = zip(joined.split(sizes, 1), gathered.split(sizes, 1), prior.split(sizes, 1), strict=True)
        layers = [
            local_mmd(z.contiguous(), all_z.contiguous(), p.contiguous(), first_position, kernel)
            for (z, all_z, p), kernel in zip(columns, self.kernels, strict=True)
        ]
        unbiased = torch.stack([layer.unbiased for layer in layers])
        chosen = unbiased if self.config.estimator == "unbiased" else torch.stack([layer.biased for layer in layers])
        return chosen.float(), unbiased.float()
