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

from pipeline.config.schema import ObjectiveConfig
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import local_mmd
from pipeline.losses.reconstruction import ReconstructionLoss
from pipeline.model.vlae import VLAE, Posterior


class Losses(NamedTuple):
    """The losses of one rank. All but ``loss`` are shares: their sums over ranks are the values of the batch."""

    loss: Tensor
    """(), the source of this rank's gradient."""
    reconstruction: Tensor
    """() share of the mean reconstruction error, with weight 1."""
    regularizer: Tensor
    """(L,) shares of each layer's unbiased MMD² or KL in nats, with weight 1."""


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
        self.vlae = vlae
        self.reconstruction_loss = ReconstructionLoss(config, vlae.image_shape)
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
            reconstruction, error = self.reconstruction_loss(output, target)
            shares, logged = self._regularizer(posteriors, latents, prior)
        # DDP averages gradients over ranks. The mean of local means is the mean of the batch, because all ranks have
        # equally many images. The shares of the MMD must be summed instead, hence the world size.
        weight = self.config.regularizer_weight * self.world_size
        loss = self.config.reconstruction_weight * reconstruction + weight * shares.sum()
        return Losses(loss, error / self.world_size, logged.detach())

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
