"""A small network that reads everything known of images off their codes at once.

Boosted trees split one number of a code at a time; what a ladder spreads smoothly over many numbers they hardly find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from analysis.probes.dataset import Target
from analysis.probes.scores import Kind
from analysis.probes.teaching import PartialLabels, masked_multitask_loss

HIDDEN = 128  # of each of two layers: one of 512 tells fewer digits apart (0.88 against 0.90) and takes twice as long
EPOCHS = 40
PATIENCE = 8  # epochs without a gain on the samples kept back
KEPT_BACK = 0.15
BATCH = 128
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.1
SEED = 0


MlpPredictions = dict[tuple[Kind, str], np.ndarray]
"""(m,) for each target by its kind and name: a factor's value, an attribute's probability, a label."""


class _Targets(NamedTuple):
    known: PartialLabels
    attributes: list[Target]
    factors: list[Target]
    labels: list[Target]  # one at most
    center: np.ndarray  # (F,) of the factors
    scale: np.ndarray
    classes: np.ndarray  # (K,) of the label


def mlp_predictions(targets: Sequence[Target], codes: np.ndarray, asked: np.ndarray) -> MlpPredictions:
    """MlpPredictions of a network fitted on ``codes`` (n, d), those of ``targets``, for the codes ``asked`` (m, d)."""
    taught = _taught(targets, len(codes))
    if not (taught.attributes or taught.factors or taught.labels):
        return {}
    center, scale = codes.mean(0), codes.std(0) + 1e-8
    x, m = (torch.from_numpy(((z - center) / scale).astype(np.float32)) for z in (codes, asked))
    network = _fit(x, taught)
    with torch.inference_mode():
        answers = network(m)
    a, f = len(taught.attributes), len(taught.factors)
    factors = answers[:, a : a + f].numpy() * taught.scale + taught.center
    read: MlpPredictions = {}
    for column, target in enumerate(taught.attributes):
        read[target.kind, target.name] = answers[:, column].sigmoid().numpy()
    for column, target in enumerate(taught.factors):
        read[target.kind, target.name] = factors[:, column]
    for target in taught.labels:
        read[target.kind, target.name] = taught.classes[answers[:, a + f :].argmax(1).numpy()]
    return read


def _taught(targets: Sequence[Target], n: int) -> _Targets:
    attributes, factors, labels = (
        [target for target in targets if target.kind == kind and not np.isnan(target.values).all()]
        for kind in ("attribute", "factor", "label")
    )
    values = _columns(factors, n)
    center, scale = (np.nanmean(values, 0), np.nanstd(values, 0) + 1e-8) if factors else (np.zeros(0), np.ones(0))
    label = labels[0].values if labels else np.full(n, np.nan)
    classes = np.unique(label[~np.isnan(label)])
    places = np.where(np.isnan(label), -1, np.searchsorted(classes, np.nan_to_num(label)))
    known = PartialLabels(
        torch.from_numpy(_columns(attributes, n)).float(),
        torch.from_numpy((values - center) / scale).float(),
        torch.from_numpy(places.astype(np.int64)),
    )
    return _Targets(known, attributes, factors, labels[:1], center, scale, classes)


def _columns(targets: Sequence[Target], n: int) -> np.ndarray:
    return np.stack([target.values for target in targets], 1) if targets else np.empty((n, 0))


def _fit(x: Tensor, taught: _Targets) -> nn.Module:
    """The network of the epoch that answers best on the samples kept back."""
    outputs = len(taught.attributes) + len(taught.factors) + len(taught.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = nn.Sequential(
            *(nn.Linear(x.shape[1], HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Linear(HIDDEN, outputs),
        )
    chance = np.random.default_rng(SEED)
    kept_back, rest = torch.from_numpy(chance.permutation(len(x))).tensor_split([int(KEPT_BACK * len(x))])
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, best_weights, waited = math.inf, {}, 0
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * epoch / EPOCHS))
        for rows in rest[torch.from_numpy(chance.permutation(len(rest)))].split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            masked_multitask_loss(network(x[rows]), taught.known.of(rows)).backward()
            optimizer.step()
        with torch.inference_mode():
            now = float(masked_multitask_loss(network(x[kept_back]), taught.known.of(kept_back)))
        waited += 1
        if now < best or not best_weights:
            best, best_weights, waited = now, {k: v.clone() for k, v in network.state_dict().items()}, 0
        if waited > PATIENCE:
            break
    network.load_state_dict(best_weights)
    return network.eval()
