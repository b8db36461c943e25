"""Linear and MLP probes: what can be predicted from codes, by a line and at all.

A set of codes is one layer's, or all layers' together. All targets are predicted at once: a linear probe is one closed
form, and the MLPs of all sets are trained together, as one batched product.

Shape letters: S sets of codes, n samples fitted on, m samples scored, d dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from torch import Tensor

from analysis.inputs.context import Progress
from analysis.probes.dataset import Target
from analysis.probes.multitask import ByTarget, Outputs, PartialLabels, masked_loss
from analysis.probes.scores import MIN_MINORITY
from pipeline.training.threads import adaptive_threads

RIDGE = 1.0
HIDDEN = 128  # units in each of two hidden layers
EPOCHS = 16
LEAST_STEPS = 200
VALIDATION_SHARE = 0.15
BATCH = 256
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.1
SEED = 0


def standardized(fitted: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (n, d), (m, d) with the mean and the deviation that the first has."""
    center, scale = fitted.mean(0), fitted.std(0) + 1e-8
    return (fitted - center) / scale, (scored - center) / scale


def linear_predictions(targets: Sequence[Target], fitted: np.ndarray, scored: np.ndarray) -> ByTarget:
    """Predicts targets by ridge regression; the label by linear discriminant analysis.

    Args:
        targets: of the samples that are fitted on.
        fitted: their codes (n, d).
        scored: codes (m, d) of other samples.

    Returns:
        (m,) for each target; a score instead of a probability for an attribute. Targets with fewer than MIN_MINORITY
        known values are left out.
    """
    x, y = (codes.astype(float) for codes in standardized(fitted, scored))
    found: ByTarget = {}
    groups: dict[bytes, list[Target]] = {}  # targets that are known of the same samples share one solution
    for target in targets:
        groups.setdefault(np.isnan(target.values).tobytes(), []).append(target)
    for group in groups.values():
        known = ~np.isnan(group[0].values)
        if known.sum() < MIN_MINORITY:
            continue
        numbers = [target for target in group if target.kind != "label"]
        if numbers:
            values = np.stack([target.values[known] for target in numbers], 1)
            predicted = Ridge(RIDGE).fit(x[known], values).predict(y).reshape(len(y), -1)
            found |= {(t.kind, t.name): column for t, column in zip(numbers, predicted.T, strict=True)}
        for target in (target for target in group if target.kind == "label"):
            values = target.values[known]
            if 1 < len(np.unique(values)) < len(values):
                predicted = LinearDiscriminantAnalysis().fit(x[known], values).predict(y)
                found[target.kind, target.name] = np.asarray(predicted)
    return found


def mlp_predictions(
    targets: Sequence[Target],
    fitted: Sequence[np.ndarray],
    scored: Sequence[np.ndarray],
    progress: Progress = lambda _text, _total: lambda _count: None,
) -> list[ByTarget]:
    """Fits one network to each of several sets of codes, and predicts the targets of other samples from their sets.

    Args:
        targets: of the samples that are fitted on.
        fitted: S sets of codes of these samples, (n, d) each.
        scored: the same S sets of other samples, (m, d) each.
        progress: told what is being done.

    Returns:
        For each set, predictions (m,) of each target.
    """
    meaning = Outputs.of(targets)
    widest = max(codes.shape[1] for codes in fitted)
    x, y = (torch.zeros(len(fitted), len(codes[0]), widest) for codes in (fitted, scored))
    for number, pair in enumerate(zip(fitted, scored, strict=True)):
        for padded, codes in zip((x, y), standardized(*pair), strict=True):
            padded[number, :, : codes.shape[1]] = torch.from_numpy(codes)
    weights = _initial_weights([codes.shape[1] for codes in fitted], widest, len(meaning))
    weights = _fit(weights, x, meaning.labels(targets), progress)
    with torch.inference_mode():
        return [meaning.by_target(meaning.predictions(outputs)) for outputs in _forward(weights, y)]


def _initial_weights(inputs: Sequence[int], widest: int, outputs: int) -> list[Tensor]:
    """Weights (S, in, out) and biases (S, 1, out) of three layers, uniform by fan-in as in ``nn.Linear``."""
    generator = torch.Generator().manual_seed(SEED)
    weights: list[Tensor] = []
    for fan_in, fan_out in ((widest, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, outputs)):
        fan = torch.tensor([fan_in] * len(inputs) if weights else inputs).view(-1, 1, 1)
        for shape in ((len(inputs), fan_in, fan_out), (len(inputs), 1, fan_out)):
            weights.append((torch.rand(shape, generator=generator) * 2 - 1) / fan.sqrt())
    return [w.requires_grad_() for w in weights]


def _forward(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Outputs (S, n, A + F + K) of the S networks for codes (S, n, d)."""
    w1, b1, w2, b2, w3, b3 = weights
    hidden = torch.baddbmm(b1, x, w1).relu()
    hidden = torch.baddbmm(b2, hidden, w2).relu()
    return torch.baddbmm(b3, hidden, w3)


def _fit(weights: list[Tensor], x: Tensor, labels: PartialLabels, progress: Progress) -> list[Tensor]:
    """The weights of each network at the epoch with its lowest loss on the samples kept for validation."""
    rng = np.random.default_rng(SEED)
    order = torch.from_numpy(rng.permutation(x.shape[1]))
    validation, rest = order.tensor_split([int(VALIDATION_SHARE * len(order))])
    batches = -(-len(rest) // BATCH)
    epochs = max(EPOCHS, LEAST_STEPS // batches)
    advance = progress("MLP probes", epochs)
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True)
    best = torch.full((len(x),), math.inf)
    best_weights = [w.detach().clone() for w in weights]
    drawn = (rest[torch.from_numpy(rng.permutation(len(rest)))].split(BATCH) for _ in range(epochs))
    for step, batch in enumerate(adaptive_threads(chain.from_iterable(drawn), x.device)):
        epoch, position = divmod(step, batches)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * epoch / epochs))
        optimizer.zero_grad(set_to_none=True)
        masked_loss(_forward(weights, x[:, batch]), labels.select(batch)).sum().backward()
        optimizer.step()
        if position < batches - 1:
            continue
        with torch.inference_mode():
            loss = masked_loss(_forward(weights, x[:, validation]), labels.select(validation))
            better = loss < best
            best = torch.where(better, loss, best)
            for kept, now in zip(best_weights, weights, strict=True):
                kept[better] = now[better]
        advance(1)
    return best_weights
