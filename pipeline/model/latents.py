"""What the latents of a trained ladder do: codes of images, samples, and each layer's effect on the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.data.counter_rng import Stream, normal, uniform
from pipeline.model.vlae import VLAE


def replace_layer(codes: Sequence[Tensor], drawn: Sequence[Tensor], layer: int) -> list[Tensor]:
    """``codes`` with one layer replaced by ``drawn``'s; all (B, d_l), bottom first."""
    return [drawn[i] if i == layer else z for i, z in enumerate(codes)]


@torch.no_grad()
def layer_effects(vlae: VLAE, codes: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
    """Effect of each layer: (L,) float32.

    Mean |change| of the decoded image when only that layer is drawn anew from the prior, over the change when all
    layers are. ``codes`` and ``drawn`` are lists of (B, d_l), bottom first; 0 = the decoder ignores the layer.
    """
    base = vlae.decode(codes)
    everything = (vlae.decode(drawn) - base).abs().mean()
    alone = [(vlae.decode(replace_layer(codes, drawn, layer)) - base).abs().mean() for layer in range(len(codes))]
    return torch.stack(alone) / everything.clamp(min=1e-12)


def split_layers(joined: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """(B, Σd) as a list of (B, d_l), bottom first."""
    return list(joined.split(list(sizes), dim=1))


def manifold_codes(layer: int, sizes: Sequence[int], side: int, seed: int) -> list[Tensor]:
    """Codes of a side × side picture of one layer's manifold, as the paper's Figures 2 and 3 draw them.

    That layer runs over [−3, 3]: a regular grid where it has 2 dimensions, else uniform draws; the other layers are
    drawn once from the prior and shared by all cells. A list of (side², d_l) float32, row by row.
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
