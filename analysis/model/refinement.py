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
from pipeline.config.schema import ObjectiveConfig
from pipeline.losses.reconstruction import ReconstructionLoss
from pipeline.model.latents import split_layers
from pipeline.model.vlae import VLAE

NOISE_VARIANCE = 0.0144
"""Variance of the pixels around their mean in [−1, 1]: about the error of photos64 on held-out photographs."""
STEP_SIZE, MOMENTUM = 0.4, 0.5
BASES = 4  # draws from the prior around which the curvature is measured
DIFFERENCE = 0.05


class Refiner:
    """Moves codes toward the mode of p(z | x) ∝ exp(−E(D(z), x) / 2σ²) N(z; 0, I), D the decoder.

    E is what the model was trained to lower: the squared error, weighted by the objective's bands and face window, as a
    sum over pixels. Without such weights the first factor is N(x; D(z), σ² I).
    """

    def __init__(self, vlae: VLAE, objective: ObjectiveConfig) -> None:
        """Measures the curvature of ``vlae``, which is in eval mode and was trained by ``objective``."""
        self.vlae, self.pixels = vlae, torch.Size(vlae.image_shape).numel()
        squared = objective.model_copy(update={"reconstruction": "l2"})
        self.loss = ReconstructionLoss(squared, vlae.image_shape).to(next(vlae.parameters()).device)
        self.inverse_curvature = self._inverse_curvature()

    def _error(self, output: Tensor, images: Tensor) -> Tensor:
        """Returns the sum of E over images (n, C, H, W): ()."""
        return self.loss(output, images)[0] * output.numel()

    def _inverse_curvature(self) -> Tensor:
        """Returns the inverse of E[Jᵀ M J] / σ² + I, (Σd, Σd) float32: a Gauss-Newton step multiplies a gradient by it.

        J holds the derivatives of all pixels by all latents, M the second derivatives of the error by all pixels,
        halved. The mean is over draws from the prior.
        """
        device, total = next(self.vlae.parameters()).device, sum(self.vlae.latent_sizes)
        codes = torch.randn(BASES, total, generator=torch.Generator().manual_seed(0))
        derivatives = jacobian(self.vlae, codes, torch.eye(total), DIFFERENCE, central=False).to(device)
        pictures = derivatives.transpose(1, 2).reshape(-1, *self.vlae.image_shape).contiguous().requires_grad_()
        with torch.enable_grad():
            error = self._error(pictures, torch.zeros_like(pictures)) / 2  # a quadratic form, so its gradient is M J
        (weighted,) = torch.autograd.grad(error, pictures)
        curvature = torch.einsum("npi,njp->ij", derivatives, weighted.reshape(BASES, total, -1)) / BASES
        return torch.linalg.inv(curvature / NOISE_VARIANCE + torch.eye(total, device=device))

    def __call__(self, images: Tensor, codes: Sequence[Tensor], steps: int) -> list[Tensor]:
        """Refines codes.

        Args:
            images: (n, C, H, W) in [−1, 1].
            codes: Where to start: (n, d_l) for each layer, bottom first.
            steps: At least 1. Each decodes once and takes one gradient.

        Returns:
            Codes of the same shapes. None is worse than where it started.
        """
        z = start = torch.cat(list(codes), dim=1)
        motion = torch.zeros_like(z)
        for _ in range(steps):
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                error = self._error(self.vlae.decode(split_layers(z, self.vlae.latent_sizes)), images)
                likelihood = error / (2 * NOISE_VARIANCE)
            (gradient,) = torch.autograd.grad(likelihood, z)
            motion = MOMENTUM * motion - STEP_SIZE * (gradient + z.detach()) @ self.inverse_curvature
            z = z.detach() + motion
        better = self.negative_log_joint(images, z) < self.negative_log_joint(images, start)
        return split_layers(torch.where(better[:, None], z, start), self.vlae.latent_sizes)

    @torch.no_grad()
    def negative_log_joint(self, images: Tensor, z: Tensor) -> Tensor:
        """Returns −log p(x, z) up to a constant, (n,), of images (n, C, H, W) and codes (n, Σd)."""
        output = self.vlae.decode(split_layers(z, self.vlae.latent_sizes))
        errors = [self.loss(*pair)[0] for pair in zip(output.split(1), images.split(1), strict=True)]
        return (torch.stack(errors) * self.pixels / NOISE_VARIANCE + z.square().sum(1)) / 2
