"""How the picture changes along steps in latent space."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.inputs.encode import decode_codes
from pipeline.model.latents import split_layers
from pipeline.model.vlae import VLAE


def jacobian(vlae: VLAE, codes: Tensor, steps: Tensor, size: float, central: bool = True) -> Tensor:
    """Derivatives of all pixels by given steps, as difference quotients: (b, C·H·W, k) float32 on the CPU.

    Args:
        vlae: The model; its pixels are in [−1, 1].
        codes: (b, Σd), all layers beside each other, bottom first.
        steps: (k, Σd).
        size: The part of each step that is taken.
        central: Whether it is taken to both sides, which errs less and decodes twice as many pictures.
    """

    def decoded(moved: Tensor) -> Tensor:
        return decode_codes(vlae, split_layers(moved, vlae.latent_sizes))

    here = None if central else decoded(codes)
    columns = [decoded(codes + step) - (decoded(codes - step) if here is None else here) for step in size * steps]
    return torch.stack(columns, dim=-1).flatten(1, 3) / (2 * size if central else size)
