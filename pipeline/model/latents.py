"""Codes of a trained ladder: split by layer, replaced, laid out as manifolds, and the effect of each layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.data.counter_rng import Stream, normal, uniform
from pipeline.model.vlae import VLAE


def replace_layer(codes: Sequence[Tensor], replacement: Sequence[Tensor], layer: int) -> list[Tensor]:
    """Returns ``codes`` with one layer taken from ``replacement``. All are (B, d_l), bottom first."""
    return [replacement[i] if i == layer else z for i, z in enumerate(codes)]


@torch.no_grad()
def layer_effects(vlae: VLAE, codes: Sequence[Tensor], prior_samples: Sequence[Tensor]) -> Tensor:
    """Measures the effect of each layer on the decoded image.

    Args:
        vlae: The model, in eval mode.
        codes: (B, d_l) a layer, bottom first.
        prior_samples: Samples from the prior, of the same shapes.

    Returns:
        (L,) float32: the mean |change| of the image when only that layer is resampled from the prior, over the change
        when all layers are. 0 = the decoder ignores the layer.
    """
    base = vlae.decode(codes)
    all_layers = (vlae.decode(prior_samples) - base).abs().mean()
    one_layer = [
        (vlae.decode(replace_layer(codes, prior_samples, layer)) - base).abs().mean() for layer in range(len(codes))
    ]
    return torch.stack(one_layer) / all_layers.clamp(min=1e-12)


def split_layers(joined: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Splits (B, Σd) into a list of (B, d_l), bottom first."""
    return list(joined.split(list(sizes), dim=1))


def manifold_codes(layer: int, sizes: Sequence[int], side: int, seed: int) -> list[Tensor]:
    """Returns the codes of a side × side picture of one layer's manifold (paper, Figures 2 and 3).

    The layer runs over [−3, 3]: on a regular grid where it has 2 dimensions, else in uniform samples. The other layers
    are sampled once from the prior and shared by all cells.

    Returns:
        A list of (side², d_l) float32, bottom first, row by row.
    """
    cells = side * side
    others = normal(torch.zeros(1, dtype=torch.int64), sum(sizes), Stream.PREVIEW, seed)
    codes = [z.expand(cells, -1).clone() for z in split_layers(others, sizes)]
    if sizes[layer] == 2:
        axis = torch.linspace(-3, 3, side)
        codes[layer] = torch.stack(torch.meshgrid(axis.flip(0), axis, indexing="ij")[::-1], -1).reshape(cells, 2)
    else:
        codes[layer] = uniform(torch.arange(cells), sizes[layer], Stream.PREVIEW, seed, layer + 1) * 6 - 3
    return codes
