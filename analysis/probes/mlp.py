"""A small multi-task network that predicts all targets from codes at once, and its loss for partial labels.

Boosted trees split one dimension of a code at a time, so they hardly find what a layer spreads smoothly over many
dimensions. One network is fitted for each set of codes; all of them are trained together, as one batched product.

Shape letters: S sets of codes, n samples, d dimensions, A attributes, F factors, K classes of the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.probes.dataset import Target
from analysis.probes.scores import Kind

HIDDEN = 128  # units in each of two hidden layers
EPOCHS = 16
VALIDATION_SHARE = 0.15
BATCH = 256
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.1
SEED = 0


MlpPredictions = dict[tuple[Kind, str], np.ndarray]
"""(m,) for each target by its kind and name: the value of a factor, the probability of an attribute, a label."""


class PartialLabels(NamedTuple):
    """Annotations of n images, any of which may be unknown."""

    attributes: Tensor  # (n, A) float32, 0 or 1; NaN where unknown
    factors: Tensor  # (n, F) float32, standardized; NaN where unknown
    labels: Tensor  # (n,) int64, −1 where unknown

    def select(self, indices: Tensor) -> PartialLabels:
        """The labels of some of the images."""
        return PartialLabels(*(values[indices] for values in self))


def masked_multitask_loss(outputs: Tensor, labels: PartialLabels) -> Tensor:
    """Cross entropy of attributes, squared error of factors and cross entropy of the label, each a mean, added up.

    Unknown values do not count.

    Args:
        outputs: (…, n, A + F + K): logits of the attributes, values of the factors, logits of the classes.
        labels: of the n images.

    Returns:
        The loss, (…).
    """
    a, f = labels.attributes.shape[1], labels.factors.shape[1]
    logits, values, classes = outputs[..., :a], outputs[..., a : a + f], outputs[..., a + f :]
    known = ~labels.attributes.isnan()
    target = labels.attributes.nan_to_num().expand_as(logits)
    errors = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
    loss = errors.sum((-2, -1)) / known.sum().clamp(min=1)
    known = ~labels.factors.isnan()
    errors = (values - labels.factors.nan_to_num()).square() * known
    loss = loss + errors.sum((-2, -1)) / known.sum().clamp(min=1)
    if classes.shape[-1]:
        target = labels.labels.expand(classes.shape[:-1])
        errors = F.cross_entropy(classes.flatten(0, -2), target.flatten(), ignore_index=-1, reduction="none")
        loss = loss + errors.view(target.shape).sum(-1) / (labels.labels >= 0).sum().clamp(min=1)
    return loss


class _Targets(NamedTuple):
    labels: PartialLabels
    attributes: list[Target]
    factors: list[Target]
    label: list[Target]  # one at most
    center: np.ndarray  # (F,) of the factors
    scale: np.ndarray
    classes: np.ndarray  # (K,) of the label


def mlp_predictions(
    targets: Sequence[Target],
    fitted: Sequence[np.ndarray],
    scored: Sequence[np.ndarray],
    advance: Callable[[int], None] = lambda _: None,
) -> list[MlpPredictions]:
    """Fits a network on each set of codes and predicts the targets of other codes.

    Args:
        targets: of the images that are fitted on.
        fitted: S sets of codes of these images, (n, d) each.
        scored: the same S sets of other images, (m, d) each.
        advance: called with the number of epochs finished since the last call, EPOCHS in all.

    Returns:
        The predictions for each set; empty dicts where there are no targets.
    """
    wanted = _as_labels(targets, len(fitted[0]))
    if not (wanted.attributes or wanted.factors or wanted.label):
        return [{} for _ in fitted]
    widest = max(codes.shape[1] for codes in fitted)
    x, y = (torch.zeros(len(fitted), len(codes[0]), widest) for codes in (fitted, scored))
    for number, (seen, asked) in enumerate(zip(fitted, scored, strict=True)):
        center, scale = seen.mean(0), seen.std(0) + 1e-8
        for padded, codes in ((x, seen), (y, asked)):
            padded[number, :, : seen.shape[1]] = torch.from_numpy((codes - center) / scale)
    weights = _fit(x, [codes.shape[1] for codes in fitted], wanted, advance)
    with torch.inference_mode():
        outputs = _forward(weights, y)
    return [_read_outputs(output, wanted) for output in outputs]


def _read_outputs(outputs: Tensor, wanted: _Targets) -> MlpPredictions:
    a, f = len(wanted.attributes), len(wanted.factors)
    factors = outputs[:, a : a + f].numpy() * wanted.scale + wanted.center
    predictions: MlpPredictions = {}
    for column, target in enumerate(wanted.attributes):
        predictions[target.kind, target.name] = outputs[:, column].sigmoid().numpy()
    for column, target in enumerate(wanted.factors):
        predictions[target.kind, target.name] = factors[:, column]
    for target in wanted.label:
        predictions[target.kind, target.name] = wanted.classes[outputs[:, a + f :].argmax(1).numpy()]
    return predictions


def _as_labels(targets: Sequence[Target], n: int) -> _Targets:
    attributes, factors, label = (
        [target for target in targets if target.kind == kind and not np.isnan(target.values).all()]
        for kind in ("attribute", "factor", "label")
    )
    values = _columns(factors, n)
    center, scale = (np.nanmean(values, 0), np.nanstd(values, 0) + 1e-8) if factors else (np.zeros(0), np.ones(0))
    numbers = label[0].values if label else np.full(n, np.nan)
    classes = np.unique(numbers[~np.isnan(numbers)])
    index = np.where(np.isnan(numbers), -1, np.searchsorted(classes, np.nan_to_num(numbers)))
    labels = PartialLabels(
        torch.from_numpy(_columns(attributes, n)).float(),
        torch.from_numpy((values - center) / scale).float(),
        torch.from_numpy(index.astype(np.int64)),
    )
    return _Targets(labels, attributes, factors, label[:1], center, scale, classes)


def _columns(targets: Sequence[Target], n: int) -> np.ndarray:
    return np.stack([target.values for target in targets], 1) if targets else np.empty((n, 0))


def _initial_weights(inputs: Sequence[int], widest: int, outputs: int) -> list[Tensor]:
    """Weights (S, in, out) and biases (S, 1, out) of three layers, uniform by fan-in as in ``nn.Linear``."""
    generator = torch.Generator().manual_seed(SEED)
    weights: list[Tensor] = []
    for fan_in, fan_out in ((widest, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs)):
        fan = torch.tensor(inputs if fan_in == widest and not weights else [fan_in] * len(inputs)).view(-1, 1, 1)
        for shape in ((len(inputs), fan_in, fan_out), (len(inputs), 1, fan_out)):
            weights.append((torch.rand(shape, generator=generator) * 2 - 1) / fan.sqrt())
    return [w.requires_grad_() for w in weights]


def _forward(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Outputs (S, n, A + F + K) of the S networks for codes (S, n, d)."""
    w1, b1, w2, b2, w3, b3 = weights
    hidden = torch.baddbmm(b1, x, w1).relu()
    hidden = torch.baddbmm(b2, hidden, w2).relu()
    return torch.baddbmm(b3, hidden, w3)


def _fit(x: Tensor, inputs: Sequence[int], wanted: _Targets, advance: Callable[[int], None]) -> list[Tensor]:
    """The weights of each network at the epoch with its lowest loss on the samples kept for validation."""
    outputs = len(wanted.attributes) + len(wanted.factors) + len(wanted.classes)
    weights = _initial_weights(inputs, x.shape[2], outputs)
    rng = np.random.default_rng(SEED)
    order = torch.from_numpy(rng.permutation(x.shape[1]))
    validation, rest = order.tensor_split([int(VALIDATION_SHARE * len(order))])
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True)
    best = torch.full((len(x),), math.inf)
    best_weights = [w.detach().clone() for w in weights]
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * epoch / EPOCHS))
        for batch in rest[torch.from_numpy(rng.permutation(len(rest)))].split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            masked_multitask_loss(_forward(weights, x[:, batch]), wanted.labels.select(batch)).sum().backward()
            optimizer.step()
        with torch.inference_mode():
            loss = masked_multitask_loss(_forward(weights, x[:, validation]), wanted.labels.select(validation))
            better = loss < best
            best = torch.where(better, loss, best)
            for kept, now in zip(best_weights, weights, strict=True):
                kept[better] = now[better]
        advance(1)
    return best_weights
