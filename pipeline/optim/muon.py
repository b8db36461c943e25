"""Muon: momentum whose matrices are orthogonalized before they are applied (Jordan et al. 2024), Adam for the rest.

Adam moves a weight matrix mostly along the few directions in which the gradient is large. In images those are the
background, the hair and the light. An orthogonalized update moves all directions equally, so small features, an eye or
a mouth, are learned at the same pace (docs/claims.md has the figures).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd quintic that takes singular values from (0, 1] to about 1 (Jordan et al. 2024)."""
ITERATIONS = 5
SMALLEST = 1e-14
ADAM_RMS = 0.2
"""Size of an Adam step relative to its learning rate. Updates are scaled to it, so that one rate suits both (Liu et al.
2025)."""


def orthogonalizer(grams: Tensor) -> Tensor:
    """Returns the matrix O for which O · X is orthogonalized, for each Gram matrix X Xᵀ of ``grams`` (k, m, m).

    For X (m, n) = U S Vᵀ with m ≤ n, the product is about U Vᵀ, to within 30 % of each singular value.

    The iteration X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X multiplies X by a polynomial of the Gram matrix X Xᵀ. So it runs on
    the (m, m) Gram matrix alone, and the large matrix is multiplied once: a fifth of the work for 256 x 4096. All
    matrices on the way are polynomials of the Gram matrix, so they commute.
    """
    a, b, c = NEWTON_SCHULZ
    # the squared Frobenius norm bounds the squared spectral norm
    size = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + SMALLEST
    grams = grams / size
    product: Tensor | None = None
    for iteration in range(ITERATIONS):
        factor = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor.bmm(product)
        if iteration + 1 < ITERATIONS:
            grams = factor.bmm(factor.bmm(grams))
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
        """Takes the parameters.

        Args:
            groups: Of parameters, each with its ``weight_decay`` (decoupled, times the learning rate).
            lr: Learning rate.
            momentum: Of the matrices.
            betas: Of Adam.
        """
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
        by_size: dict[int, list[tuple[Tensor, dict[str, Any]]]] = {}
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._adam([parameter for parameter in trained if parameter.ndim < 2], group)
            for parameter in trained:
                if parameter.ndim > 1:
                    by_size.setdefault(min(_as_matrix(parameter).shape), []).append((parameter, group))
        for weights in by_size.values():
            self._muon(weights, applied)

    def _muon(self, weights: Sequence[tuple[Tensor, dict[str, Any]]], applied: float | Tensor) -> None:
        """Moves weights whose smaller sides are equal, so that the small products of all are one call.

        ``applied`` is 1, or 0 to change nothing.
        """
        aheads = [_as_matrix(self._momentum(parameter, group["momentum"], applied)) for parameter, group in weights]
        wides = [ahead if len(ahead) <= ahead.shape[1] else ahead.T for ahead in aheads]
        matrices = orthogonalizer(torch.stack([wide @ wide.T for wide in wides]))
        for (parameter, group), ahead, matrix in zip(weights, aheads, matrices, strict=True):
            rate = group["lr"] * applied
            if group["weight_decay"]:
                parameter.mul_(1 - rate * group["weight_decay"])
            small = matrix * (rate * ADAM_RMS * max(ahead.shape) ** 0.5)
            _as_matrix(parameter).sub_(small @ ahead if len(small) == len(ahead) else ahead @ small)

    def _momentum(self, parameter: Tensor, momentum: float, applied: float | Tensor) -> Tensor:
        """Adds the gradient to the momentum, and returns it one step ahead (Nesterov)."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"]
        if isinstance(applied, Tensor):
            gradient = torch.where(applied > 0, gradient, 0.0)
        mean.mul_(1 - (1 - momentum) * applied).add_(gradient)
        return torch.add(gradient, mean, alpha=momentum)

    def _adam(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Moves vectors and scalars by Adam (Kingma and Ba 2015, algorithm 1)."""
        for parameter in parameters:
            if not self.state[parameter]:
                updates = torch.zeros((), device=parameter.device)
                zeros = torch.zeros_like(parameter)
                self.state[parameter] = {"updates": updates, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["updates"] for state in states],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def _as_matrix(weight: Tensor) -> Tensor:
    """Returns a weight as a matrix by its first axis, its other axes in the order of memory: a view.

    The order of a matrix's columns does not change its orthogonalized rows.
    """
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
