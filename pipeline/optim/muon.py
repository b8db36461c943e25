"""Muon: momentum whose matrices are orthogonalized before they are applied (Jordan et al. 2024), Adam for the rest.

Adam moves a weight matrix mostly along the few directions in which the gradient is large, and in images those are the
background, the hair and the light. An orthogonalized update moves all directions alike, so that what covers few pixels,
an eye or a mouth, is learned at the same pace (docs/claims.md has the figures).
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
"""Of an Adam step over its learning rate; an update is scaled to it so that one rate suits both (Liu et al. 2025)."""


def orthogonalized(matrix: Tensor) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ of (m, n) float32, to within about 30 % of each singular value.

    The iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X is a polynomial P of the small side's Gram matrix times X, so it
    runs on that matrix alone and X is multiplied once: a fifth of the work for a 256 x 4096 weight.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    a, b, c = NEWTON_SCHULZ
    gram = wide @ wide.T
    size = gram.diagonal().sum() + SMALLEST  # the squared Frobenius norm bounds the squared spectral one
    gram = gram / size
    identity = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    product = identity
    for _ in range(ITERATIONS):
        factor = a * identity + b * gram + c * (gram @ gram)
        product = factor @ product
        gram = factor @ gram @ factor
    result = (product / size.sqrt()) @ wide
    return result if wide is matrix else result.T


class Muon(Optimizer):
    """Orthogonalised momentum for matrices and convolutions, Adam for vectors and scalars.

    A group's ``lr`` serves both. As torch's fused Adam does, a step with ``found_inf`` 1 changes nothing, decided on
    the device: no host synchronisation.
    """

    _step_supports_amp_scaling = True  # found_inf is heeded; gradients come unscaled

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """``groups`` of parameters, each with ``weight_decay`` (decoupled, times the learning rate)."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": 0.0})
        self.found_inf: Tensor | None = None
        self.grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter with a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        before = dict(state) or self._fresh(parameter)
        if parameter.ndim > 1:
            after, direction = _orthogonal_direction(parameter.grad, before, group["momentum"])
        else:
            after, direction = _adam_direction(parameter.grad, before, group["betas"])
        moved = parameter * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * direction
        if self.found_inf is not None:
            bad = self.found_inf.to(parameter.device) > 0
            moved = torch.where(bad, parameter, moved)
            after = {key: torch.where(bad, before[key], value) for key, value in after.items()}
        parameter.copy_(moved)
        state.update(after)

    @staticmethod
    def _fresh(parameter: Tensor) -> dict[str, Tensor]:
        if parameter.ndim > 1:
            return {"momentum": torch.zeros_like(parameter)}
        start = torch.zeros((), device=parameter.device)
        return {"updates": start, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}


def _orthogonal_direction(
    gradient: Tensor | None, state: dict[str, Tensor], momentum: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The new state, and the update (negated, rate 1) of a weight with two or more dimensions."""
    assert gradient is not None
    mean = state["momentum"] * momentum + gradient
    ahead = (gradient + momentum * mean).flatten(1).float()  # Nesterov; a convolution is a matrix by its first axis
    scale = ADAM_RMS * max(ahead.shape) ** 0.5
    return {"momentum": mean}, (scale * orthogonalized(ahead)).view_as(gradient)


def _adam_direction(
    gradient: Tensor | None, state: dict[str, Tensor], betas: tuple[float, float]
) -> tuple[dict[str, Tensor], Tensor]:
    """The new state, and the update (negated, rate 1) by Adam (Kingma and Ba 2015, algorithm 1)."""
    assert gradient is not None
    step = state["updates"] + 1
    mean = torch.lerp(state["exp_avg"], gradient, 1 - betas[0])
    square = torch.lerp(state["exp_avg_sq"], gradient**2, 1 - betas[1])
    direction = mean / (1 - betas[0] ** step) / ((square / (1 - betas[1] ** step)).sqrt() + 1e-8)
    return {"updates": step, "exp_avg": mean, "exp_avg_sq": square}, direction
