"""Directions of each layer that change the picture most, and the mean codes of attributes and groups of attributes.

Letters in shapes: n images, b images around which directions are measured, d latent dimensions of a layer, k
directions, A attributes, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from analysis.model.jacobian import jacobian
from pipeline.model.latents import split_layers
from pipeline.model.pretrained_schema import LayerLatents
from pipeline.model.vlae import VLAE

FEWEST = 20  # images on each side of an attribute, or in a group
MOST_PAIRED = 6  # attributes that are paired into groups
PRIOR_BASES = 6  # draws of the prior around which the directions of a plain checkpoint are measured
STEP = 0.5  # half of the step, in standard deviations, over which the picture's change is measured
LABEL_CORRELATION = 0.3  # least |correlation| with which a direction is named for an attribute or factor


def prior_latents(vlae: VLAE, advance: Callable[[int], None] = lambda _: None) -> list[LayerLatents]:
    """Latents of a model without images: those of the prior, with directions measured around draws of it."""
    sizes = vlae.latent_sizes
    drawn = torch.randn(PRIOR_BASES, sum(sizes), generator=torch.Generator().manual_seed(0))
    moments = [(torch.zeros(size), torch.eye(size)) for size in sizes]
    return _all_layers(vlae, split_layers(drawn, sizes), moments, advance)


def layer_latents(
    vlae: VLAE, codes: Sequence[Tensor], bases: Sequence[Tensor], advance: Callable[[int], None] = lambda _: None
) -> list[LayerLatents]:
    """Statistics of mean codes, and principal directions of every layer.

    Args:
        vlae: On any device.
        codes: Mean codes of held-out images, (n, d_l) for each layer, bottom first.
        bases: Codes around which directions are measured, (b, d_l) for each layer.
        advance: Called with 1 when another layer is done.
    """
    centered = [z - z.mean(0) for z in codes]
    moments = [(z.mean(0), c.T @ c / max(1, len(c) - 1)) for z, c in zip(codes, centered, strict=True)]
    return _all_layers(vlae, bases, moments, advance)


def _all_layers(
    vlae: VLAE, bases: Sequence[Tensor], moments: Sequence[tuple[Tensor, Tensor]], advance: Callable[[int], None]
) -> list[LayerLatents]:
    found = []
    for layer, (mean, covariance) in enumerate(moments):
        found.append(_principal_directions(vlae, layer, bases, mean, covariance))
        advance(1)
    return found


def _principal_directions(
    vlae: VLAE, layer: int, bases: Sequence[Tensor], mean: Tensor, covariance: Tensor
) -> LayerLatents:
    """Directions of one layer, those that change the picture most first (active subspaces, Constantine 2014).

    They are eigenvectors of E[Jᵀ J], where J is the change of all pixels for a step of one standard deviation along
    each dimension of the whitened code. The mean is over ``bases``. ``mean`` (d,) and ``covariance`` (d, d) are of the
    layer's codes.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    root = ((vectors * values.clamp(min=1e-8).sqrt()) @ vectors.T).float()  # symmetric square root
    sizes = vlae.latent_sizes
    steps = pad(root, (sum(sizes[:layer]), sum(sizes[layer + 1 :])))  # the other layers are held
    derivatives = jacobian(vlae, torch.cat(list(bases), 1), steps, STEP)
    _, vectors = torch.linalg.eigh(torch.einsum("npi,npj->ij", derivatives, derivatives).double())
    turn = vectors.flip(1).float()
    change = (derivatives @ turn).abs_().mean((0, 1))
    order = change.argsort(descending=True)
    std = covariance.diagonal().clamp(min=0).sqrt()
    return LayerLatents(mean, std, (turn.T @ root)[order], change[order] / 2)  # pixels in [0, 1]


def label_directions(
    latents: Sequence[LayerLatents], codes: Sequence[Tensor], names: Sequence[str], targets: np.ndarray
) -> tuple[list[LayerLatents], list[tuple[str, ...]]]:
    """Names directions for the attribute or factor that follows the position along them, and turns them that way.

    Args:
        latents: Of every layer, bottom first.
        codes: Mean codes of n held-out images, (n, d_l) for each layer.
        names: Of the T attributes and factors.
        targets: (n, T) with NaN where unknown.

    Returns:
        The same latents with rows of ``directions`` reversed where the correlation was negative, and a label for each
        row, '' where no |correlation| reaches LABEL_CORRELATION.
    """
    turned, labels = [], []
    plain = [*(name.replace("_", " ").lower() for name in names), ""]
    for layer, z in zip(latents, codes, strict=True):
        positions = (z - layer.mean).double() @ torch.linalg.pinv(layer.directions.double())
        correlations = np.column_stack([_correlations(positions.numpy(), targets), np.zeros(len(layer.directions))])
        best = np.abs(correlations).argmax(1)
        strengths = correlations[np.arange(len(best)), best]
        named = np.where(np.abs(strengths) >= LABEL_CORRELATION, best, -1)  # the last name is empty
        labels.append(tuple(plain[column] for column in named))
        signs = torch.from_numpy(np.where(strengths < 0, -1.0, 1.0)).float()
        turned.append(layer._replace(directions=layer.directions * signs[:, None]))
    return turned, labels


def _correlations(positions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(k, T) Pearson correlations over the images of which a target is known; 0 where it does not vary."""
    found = np.zeros((positions.shape[1], targets.shape[1]))
    for column, values in enumerate(targets.T):
        known = ~np.isnan(values)
        if known.sum() >= FEWEST and np.ptp(values[known]) > 0:
            x, y = (part[known] - part[known].mean(0) for part in (positions, values))
            found[:, column] = y @ x / np.sqrt((x * x).sum(0) * (y * y).sum() + 1e-12)
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
    sides = {name: (name, f"not {name}") for name in names}
    groups = {
        word: values == wanted
        for name, values in zip(names, attributes.T, strict=True)
        for word, wanted in zip(sides[name], (1, 0), strict=True)
    }
    common = [name for name in names if all(groups[word].sum() >= FEWEST for word in sides[name])]
    for first, second in combinations(common[:MOST_PAIRED], 2):
        for one, other in product(sides[first], sides[second]):
            groups[f"{one}, {other}"] = groups[one] & groups[other]
    means = {
        word: [z[torch.from_numpy(chosen)].mean(0, keepdim=True) for z in codes]
        for word, chosen in groups.items()
        if chosen.sum() >= FEWEST
    }
    directions = {name: [x - y for x, y in zip(means[name], means[f"not {name}"], strict=True)] for name in common}
    return directions, means
