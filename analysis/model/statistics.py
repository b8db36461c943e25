"""Directions of each layer that change the picture most, and the mean codes of attributes and groups of attributes.

Letters in shapes: n images, d latent dimensions of a layer, k directions, A attributes, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from pipeline.model.latents import split_layers
from pipeline.model.pretrained_schema import LayerLatents, Pretrained
from pipeline.model.vlae import VLAE

FEWEST = 20  # images on each side of an attribute, or in a group
MOST_PAIRED = 6  # attributes that are paired into groups
BASES = 24  # images around which directions are measured
PRIOR_BASES = 6  # the same for a plain checkpoint, which is measured when it is opened
STEP = 0.5  # half of the step, in standard deviations, over which the picture's change is measured
BATCH = 128
LABEL_CORRELATION = 0.3  # least |correlation| with which a direction is named for an attribute or factor


def complete_latents(model: Pretrained, advance: Callable[[int], None] = lambda _: None) -> list[LayerLatents]:
    """Latents of a model; those of a plain checkpoint are computed around draws of the prior."""
    if model.latents is not None:
        return model.latents
    sizes = model.vlae.latent_sizes
    generator = torch.Generator().manual_seed(0)
    codes = split_layers(torch.randn(PRIOR_BASES, sum(sizes), generator=generator), sizes)
    found = []
    for layer, size in enumerate(sizes):
        found.append(principal_directions(model.vlae, layer, codes, torch.zeros(size), torch.eye(size)))
        advance(1)
    return found


def layer_latents(
    vlae: VLAE, codes: Sequence[Tensor], advance: Callable[[int], None] = lambda _: None
) -> list[LayerLatents]:
    """Statistics and principal directions of every layer.

    Args:
        vlae: On any device.
        codes: Mean codes of held-out images, (n, d_l) for each layer, bottom first.
        advance: Called with 1 when another layer is done.
    """
    bases = [z[:: max(1, len(z) // BASES)][:BASES] for z in codes]
    found = []
    for layer, z in enumerate(codes):
        centered = z - z.mean(0)
        covariance = centered.T @ centered / max(1, len(z) - 1)
        found.append(principal_directions(vlae, layer, bases, z.mean(0), covariance))
        advance(1)
    return found


def principal_directions(
    vlae: VLAE, layer: int, bases: Sequence[Tensor], mean: Tensor, covariance: Tensor
) -> LayerLatents:
    """Directions of one layer, those that change the picture most first (active subspaces, Constantine 2014).

    They are eigenvectors of E[Jᵀ J], where J is the change of all pixels for a step of one standard deviation along
    each dimension of the whitened code: the mean is over ``bases``, J is a central difference.

    Args:
        vlae: On any device.
        layer: The one that moves.
        bases: Codes (b, d_l) around which it moves.
        mean: (d,) of the layer's codes.
        covariance: (d, d) of the layer's codes.

    Returns:
        The layer's statistics with k = d directions.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    root = ((vectors * values.clamp(min=1e-8).sqrt()) @ vectors.T).float()  # symmetric square root
    size = len(mean)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for row in range(len(bases[0])):
        jacobian = _change(vlae, layer, [z[row : row + 1] for z in bases], root)
        gram += (jacobian @ jacobian.T).double()
    _, vectors = torch.linalg.eigh(gram)
    directions = vectors.flip(1).T.float() @ root
    change = torch.stack(
        [
            _change(vlae, layer, [z[row : row + 1] for z in bases], directions).abs().mean(1)
            for row in range(len(bases[0]))
        ]
    ).mean(0)
    order = change.argsort(descending=True)
    std = covariance.diagonal().clamp(min=0).sqrt()
    return LayerLatents(mean.clone(), std, directions[order].contiguous(), change[order] / 2)  # pixels in [0, 1]


@torch.inference_mode()
def _change(vlae: VLAE, layer: int, code: Sequence[Tensor], steps: Tensor) -> Tensor:
    """(k, C·H·W): change of the picture of one code (1, d_l) for each row of ``steps`` (k, d)."""
    device = next(vlae.parameters()).device
    moved = torch.cat([code[layer] + STEP * steps, code[layer] - STEP * steps])
    parts = []
    for part in moved.split(BATCH):
        codes = [part if i == layer else z.expand(len(part), -1) for i, z in enumerate(code)]
        parts.append(vlae.decode([z.to(device) for z in codes]).flatten(1).cpu())
    plus, minus = torch.cat(parts).chunk(2)
    return (plus - minus) / (2 * STEP)


def label_directions(
    latents: Sequence[LayerLatents], codes: Sequence[Tensor], names: Sequence[str], targets: np.ndarray
) -> tuple[list[LayerLatents], list[tuple[str, ...]]]:
    """Names directions for the attribute or factor that follows the position along them, and turns them that way.

    Args:
        latents: Of every layer.
        codes: Mean codes of n held-out images.
        names: Of the T targets.
        targets: (n, T) with NaN where unknown.

    Returns:
        The same latents with rows of ``directions`` reversed where the correlation was negative, and a label for each
        row, '' where no |correlation| reaches LABEL_CORRELATION.
    """
    turned, labels = [], []
    for layer, z in zip(latents, codes, strict=True):
        inverse = torch.linalg.pinv(layer.directions.double())
        positions = ((z - layer.mean).double() @ inverse).numpy()  # (n, k) in standard deviations
        correlations = _correlations(positions, targets)
        best = np.abs(correlations).argmax(1) if len(names) else np.zeros(len(positions[0]), int)
        row_labels, signs = [], []
        for row, column in enumerate(best):
            strength = correlations[row, column] if len(names) else 0.0
            row_labels.append(
                names[int(column)].replace("_", " ").lower() if abs(strength) >= LABEL_CORRELATION else ""
            )
            signs.append(-1.0 if strength < 0 else 1.0)
        turned.append(layer._replace(directions=layer.directions * torch.tensor(signs)[:, None]))
        labels.append(tuple(row_labels))
    return turned, labels


def _correlations(positions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(k, T) Pearson correlations over the images of which a target is known; 0 where it does not vary."""
    found = np.zeros((positions.shape[1], targets.shape[1]))
    for column, values in enumerate(targets.T):
        known = ~np.isnan(values)
        if known.sum() < FEWEST or np.ptp(values[known]) == 0:
            continue
        y = values[known] - values[known].mean()
        x = positions[known] - positions[known].mean(0)
        found[:, column] = (x * y[:, None]).sum(0) / np.sqrt((x * x).sum(0) * (y * y).sum() + 1e-12)
    return found


def attribute_means(
    codes: Sequence[Tensor], names: Sequence[str], attributes: np.ndarray
) -> tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]:
    """Directions of attributes, and mean codes of groups.

    Args:
        codes: Mean codes of n training images, (n, d_l) for each layer.
        names: Of the A attributes.
        attributes: int8 (n, A): 1, 0, or −1 where unknown.

    Returns:
        Attribute -> mean code with it minus mean code without it; group -> mean code. A group is an attribute
        ('Smiling', 'not Smiling') or a pair of two ('Male, not Smiling') of the first MOST_PAIRED attributes that are
        not rare. All (1, d_l) for each layer; those of fewer than FEWEST images are left out.
    """
    groups: dict[str, np.ndarray] = {}
    for column, name in enumerate(names):
        groups |= {word: attributes[:, column] == value for word, value in _sides(name)}
    means = {word: _mean(codes, chosen) for word, chosen in groups.items() if chosen.sum() >= FEWEST}
    directions = {
        name: [x - y for x, y in zip(means[name], means[f"not {name}"], strict=True)]
        for name in names
        if name in means and f"not {name}" in means
    }
    for first, second in combinations(list(directions)[:MOST_PAIRED], 2):
        for one, _ in _sides(first):
            for other, _ in _sides(second):
                both = groups[one] & groups[other]
                if both.sum() >= FEWEST:
                    means[f"{one}, {other}"] = _mean(codes, both)
    return directions, means


def _sides(name: str) -> tuple[tuple[str, int], tuple[str, int]]:
    return (name, 1), (f"not {name}", 0)


def _mean(codes: Sequence[Tensor], chosen: np.ndarray) -> list[Tensor]:
    rows = torch.from_numpy(np.flatnonzero(chosen))
    return [z[rows].mean(0, keepdim=True) for z in codes]
