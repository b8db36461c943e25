"""Refined codes: a few steps from what the encoder says toward the code whose picture is nearest to the image.

The encoder reads all codes with one set of weights, and on images that it was not trained on it errs. The decoder errs
less. So the code is moved to the mode of its posterior under the decoder, as in semi-amortized inference (Kim et al.
2018). docs/experiments.md has the gain.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from analysis.model.jacobian import jacobian
from pipeline.model.latents import split_layers
from pipeline.model.vlae import VLAE

NOISE_VARIANCE = 0.0144
"""Variance of the pixels around their mean in [−1, 1]: about the error of photos64 on held-out photographs."""
STEP_SIZE, MOMENTUM = 0.4, 0.5
BASES = 4  # draws from the prior around which the curvature is measured
DIFFERENCE = 0.05


def inverse_curvature(vlae: VLAE) -> Tensor:
    """Returns the inverse of E[Jᵀ J] / σ² + I, (Σd, Σd) float32: what a Gauss-Newton step multiplies the gradient by.

    J holds the derivatives of all pixels by all latents. The mean is over draws from the prior.
    """
    total = sum(vlae.latent_sizes)
    identity = torch.eye(total)
    codes = torch.randn(BASES, total, generator=torch.Generator().manual_seed(0))
    derivatives = jacobian(vlae, codes, identity, DIFFERENCE, central=False)
    curvature = torch.einsum("npi,npj->ij", derivatives, derivatives) / BASES
    return torch.linalg.inv(curvature / NOISE_VARIANCE + identity).to(next(vlae.parameters()).device)


def refine(vlae: VLAE, images: Tensor, codes: Sequence[Tensor], curvature: Tensor, steps: int) -> list[Tensor]:
    """Moves codes toward the mode of p(z | x) ∝ N(x; D(z), σ² I) N(z; 0, I), D the decoder.

    ``images`` are (n, C, H, W) in [−1, 1], ``codes`` where to start, (n, d_l) for each layer, bottom first, and
    ``curvature`` is of :func:`inverse_curvature`. Each of the ``steps`` decodes once and takes one gradient. Of each
    image the best of all steps is kept, so none is worse than where it started.
    """
    z = torch.cat(list(codes), dim=1)
    best, lowest, motion = z, torch.full((len(z),), torch.inf, device=z.device), torch.zeros_like(z)
    for step in range(steps + 1):
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            error = (vlae.decode(split_layers(z, vlae.latent_sizes)) - images).square().flatten(1).sum(1)
            loss = (error / NOISE_VARIANCE + z.square().sum(1)) / 2  # −log p(x, z) up to a constant
        better = loss.detach() < lowest
        best, lowest = torch.where(better[:, None], z.detach(), best), torch.minimum(lowest, loss.detach())
        if step < steps:
            (gradient,) = torch.autograd.grad(loss, z, torch.ones_like(loss))
            motion = MOMENTUM * motion - STEP_SIZE * gradient @ curvature
            z = z + motion
    return split_layers(best, vlae.latent_sizes)
