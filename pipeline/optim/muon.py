"""Muon: momentum whose matrices are orthogonalized before they are applied (Jordan et al. 2024), Adam for the rest.

Adam moves a weight matrix mostly along the few directions in which the gradient is large. In images those are the
background, the hair and the light. An orthogonalized update moves all directions equally, so small features, an eye or
a mouth, are learned at the same pace (docs/claims.md has the figures).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd quintic that takes singular values from (0, 1] to about 1 (Jordan et al. 2024)."""
ITERATIONS = 5
SMALLEST = 1e-14
ADAM_RMS = 0.2
"""Size of an Adam step relative to its learning rate. Updates are scaled to it, so that one rate suits both (Liu et al.
2025)."""


def orthogonalizer(wide: Tensor) -> Tensor:
    """Returns the matrix O for which O · ``wide`` is orthogonalized.

    For ``wide`` (m, n) = U S Vᵀ with m ≤ n, the product is about U Vᵀ, to within 30 % of each singular value.

    The iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X multiplies X by a polynomial of the Gram matrix X Xᵀ. So it runs on
    the (m, m) Gram matrix alone, and the large matrix is multiplied once: a fifth of the work for 256 x 4096. All
    matrices on the way are polynomials of the Gram matrix, so they commute.
    """
    a, b, c = NEWTON_SCHULZ
    gram = wide @ wide.T
    size = gram.diagonal().sum() + SMALLEST  # the squared Frobenius norm bounds the squared spectral norm
    gram /= size
    product: Tensor | None = None
    for iteration in range(ITERATIONS):
        factor = (gram @ gram).mul_(c).add_(gram, alpha=b)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if iteration + 1 < ITERATIONS:
            gram = factor @ (factor @ gram)
    assert product is not None
    return product / size.sqrt()


class Muon(Optimizer):
    """Orthogonalized momentum for matrices and convolutions, Adam for vectors and scalars.

    A group's ``lr`` serves both. As in torch's fused Adam, a step with ``found_inf`` 1 changes nothing. On a GPU that
    is decided on the device, and the host does not wait for it.
    """

    _step_supports_amp_scaling = True  # ``found_inf`` is respected; gradients come unscaled

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Takes ``groups`` of parameters, each with its ``weight_decay`` (decoupled, times the learning rate)."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": 0.0})
        self.found_inf: Tensor | None = None
        self.grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Updates every parameter with a gradient."""
        applied: float | Tensor = 1.0
        if self.found_inf is not None:
            if not self.found_inf.is_cuda and self.found_inf.item() > 0:
                return
            if self.found_inf.is_cuda:
                applied = (self.found_inf == 0).float()  # 0 makes every update below leave its tensor as it is
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if isinstance(applied, Tensor):
                    gradient = torch.where(applied > 0, gradient, 0.0)
                state = self.state[parameter] or self._start(parameter)
                update = _muon_update if parameter.ndim > 1 else _adam_update
                update(parameter, gradient, state, group, applied)

    def _start(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter.ndim > 1:
            state = {"momentum": torch.zeros_like(parameter)}
        else:
            updates = torch.zeros((), device=parameter.device)
            zeros = torch.zeros_like(parameter)
            state = {"updates": updates, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        self.state[parameter] = state
        return state


def _muon_update(
    parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], applied: float | Tensor
) -> None:
    """Moves a weight with two or more dimensions, in place. ``applied`` is 1, or 0 to change nothing."""
    momentum, rate = group["momentum"], group["lr"] * applied
    mean = state["momentum"]
    mean.mul_(1 - (1 - momentum) * applied if isinstance(applied, Tensor) else momentum).add_(gradient)
    ahead = _as_matrix(torch.add(gradient, mean, alpha=momentum))  # Nesterov
    weight = _as_matrix(parameter)
    if len(ahead) > ahead.shape[1]:
        weight, ahead = weight.T, ahead.T
    scale = ADAM_RMS * ahead.shape[1] ** 0.5
    parameter.mul_(1 - rate * group["weight_decay"])
    weight.addmm_(orthogonalizer(ahead) * (rate * scale), ahead, alpha=-1)


def _as_matrix(weight: Tensor) -> Tensor:
    """Returns a weight as a matrix by its first axis, its other axes in the order of memory: a view.

    The order of a matrix's columns does not change its orthogonalized rows.
    """
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)


def _adam_update(
    parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any], applied: float | Tensor
) -> None:
    """Moves a vector or scalar, in place, by Adam (Kingma and Ba 2015, algorithm 1). See ``_muon_update``."""
    beta1, beta2 = group["betas"]
    rate = group["lr"] * applied
    step, mean, square = state["updates"], state["exp_avg"], state["exp_avg_sq"]
    step += applied
    mean.lerp_(gradient, (1 - beta1) * applied)
    square.lerp_(gradient**2, (1 - beta2) * applied)
    direction = mean / (1 - beta1**step) / ((square / (1 - beta2**step)).sqrt() + 1e-8)
    parameter.mul_(1 - rate * group["weight_decay"]).sub_(direction * rate)
