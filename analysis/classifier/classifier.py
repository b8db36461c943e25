"""The attribute classifier: a small convolutional network that predicts attributes, factors and labels of a picture.

It is trained on real images of the train split, scored on real held-out images, and then applied to decoded images.
It never uses the model: its predictions for a decoded image do not depend on the codes. What it cannot predict for
real held-out images (`is_reliable`) is not measured with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.inputs.encode import BATCH, Encoded, in_chunks
from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import Target, classes_of, targets
from analysis.probes.mlp import PartialLabels, masked_multitask_loss
from analysis.probes.scores import MIN_MINORITY, SCORE_NAMES, SCORES, Kind, chance
from pipeline.model.pixels import from_array
from preprocess.shards.reader import Annotations

WIDTHS = (16, 32, 64, 96)
FEATURES = 96
LARGEST = 64  # pixels a side; larger images are averaged down
TRAIN_BATCH = 64
LEARNING_RATE = 4e-3
MIN_SKILL = {"attribute": 0.5, "factor": 0.3, "label": 0.45}
"""(score − chance) / (1 − chance) on held-out images that makes a prediction reliable: AUC 0.75, R² 0.3."""
SEED = 0


class Predictions(NamedTuple):
    """Predictions for n images, on the CPU, float32."""

    attributes: Tensor  # (n, A) probability of each
    factors: Tensor  # (n, F) in the units of the factor
    labels: Tensor  # (n, K) probability of each; K = 0 where the data has no labels
    features: Tensor  # (n, FEATURES), of the last hidden layer


class _Network(nn.Module):
    """Maps images (B, C, H, W) in [−1, 1] to outputs (B, A + F + K) and features (B, FEATURES)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, WIDTHS, strict=False)
        ]
        self.trunk = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(WIDTHS[-1] * 16, FEATURES, bias=False), nn.BatchNorm1d(FEATURES))
        self.outputs = nn.Linear(FEATURES, outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-1] > LARGEST:
            images = F.adaptive_avg_pool2d(images, LARGEST)
        features = F.relu(self.hidden(self.trunk(images)))
        return self.outputs(features), features


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained classifier; ``scores[kind][name]`` = {auc, r2 or accuracy; interval, n} on real held-out images."""

    network: _Network
    device: torch.device
    attribute_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    factor_mean: Tensor  # (F,)
    factor_std: Tensor  # (F,)
    classes: np.ndarray  # (K,) the labels, ascending
    n_train: int
    scores: dict[str, dict[str, Any]]

    def is_reliable(self, kind: Kind, name: str) -> bool:
        """Whether it predicts this for real held-out images well enough to be applied to decoded ones."""
        entry = self.scores[kind].get(name)
        if entry is None:
            return False
        skill = (entry[SCORE_NAMES[kind]] - entry["chance"]) / (1 - entry["chance"])
        return skill >= MIN_SKILL[kind]

    def reliable_attributes(self) -> list[int]:
        """Columns of the attributes that it predicts reliably."""
        return [i for i, name in enumerate(self.attribute_names) if self.is_reliable("attribute", name)]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Predictions:
        """Predicts for images (n, C, H, W) in [−1, 1] on any device."""
        parts = []
        for start in range(0, len(images), BATCH):
            chunk = images[start : start + BATCH].to(self.device, memory_format=torch.channels_last)
            parts.append([t.float().cpu() for t in self.network(chunk)])
        outputs, features = (torch.cat(p) for p in zip(*parts, strict=True))
        a, f = len(self.attribute_names), len(self.factor_names)
        return Predictions(
            outputs[:, :a].sigmoid(),
            outputs[:, a : a + f] * self.factor_std + self.factor_mean,
            outputs[:, a + f :].softmax(1),
            features,
        )

    def predict_uint8(self, images: np.ndarray) -> Predictions:
        """Predicts for uint8 images (n, H, W, C)."""
        return Predictions(*(torch.cat(parts) for parts in zip(*map(self, in_chunks(images)), strict=True)))


def _partial_labels(annotations: Annotations, classes: np.ndarray, mean: Tensor, std: Tensor) -> PartialLabels:
    labels = np.where(np.isin(annotations.label, classes), np.searchsorted(classes, annotations.label), -1)
    attributes = torch.from_numpy(annotations.attributes).float()
    attributes[attributes < 0] = torch.nan
    return PartialLabels(attributes, (torch.from_numpy(annotations.factors) - mean) / std, torch.from_numpy(labels))


def _moments(factors: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,) float32 of factors (n, F); 0 and 1e-6 where a factor is never known."""
    known = np.isfinite(factors)
    count = known.sum(0).clip(min=1)
    values = np.where(known, factors, 0).astype(float)
    mean = values.sum(0) / count
    variance = (np.where(known, values - mean, 0) ** 2).sum(0) / count
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float().clamp(min=1e-6)


def _blur_half(images: Tensor) -> Tensor:
    """Blurs every second image (halved and enlarged again), because decoded images are softer than real ones."""
    small = F.avg_pool2d(images[::2], 2, ceil_mode=True)
    images[::2] = F.interpolate(small, images.shape[-2:], mode="bilinear")
    return images


def _learning_rate_share(steps: int, step: int) -> float:
    """Share of the learning rate: linear up over the first fifth, then a cosine down to 0."""
    return min((step + 1) / (0.2 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def train_attribute_classifier(
    images: np.ndarray,
    annotations: Annotations,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    device: torch.device,
    shown: int,
    advance: Callable[[int], None],
) -> AttributeClassifier | None:
    """Trains a classifier, still without scores. The same images give the same classifier on one machine.

    Args:
        images: uint8 (n, H, W, C).
        annotations: of these images.
        names: the names of the attributes and of the factors.
        device: where it is trained and applied.
        shown: images to train on in all, each counted as often as it is used.
        advance: called with the number of images used since the last call.

    Returns:
        None where there are no annotations, or fewer images than a batch.
    """
    classes = classes_of(annotations.label)
    outputs = len(names[0]) + len(names[1]) + len(classes)
    if outputs == 0 or len(images) < TRAIN_BATCH:
        return None
    mean, std = _moments(annotations.factors)
    labels = _partial_labels(annotations, classes, mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _Network(images.shape[-1], outputs).to(device).train()
    network.to(memory_format=torch.channels_last)
    steps = max(1, shown // TRAIN_BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_learning_rate_share, steps))
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(-(-steps * TRAIN_BATCH // len(images)))])
    for step in range(steps):
        indices = order[step * TRAIN_BATCH : (step + 1) * TRAIN_BATCH]
        x = _blur_half(from_array(images[indices], device))
        batch = PartialLabels(*(values.to(device) for values in labels.select(torch.from_numpy(indices))))
        optimizer.zero_grad(set_to_none=True)
        masked_multitask_loss(network(x)[0], batch).backward()
        optimizer.step()
        schedule.step()
        advance(TRAIN_BATCH)
    network.eval().requires_grad_(False)
    return AttributeClassifier(network, device, names[0], names[1], mean, std, classes, len(images), {})


def _predicted(classifier: AttributeClassifier, predictions: Predictions, target: Target) -> np.ndarray:
    """The predictions (n,) of one target."""
    if target.kind == "attribute":
        return predictions.attributes[:, classifier.attribute_names.index(target.name)].numpy()
    if target.kind == "factor":
        return predictions.factors[:, classifier.factor_names.index(target.name)].numpy()
    return classifier.classes[predictions.labels.argmax(1).numpy()].astype(float)


def score_classifier(classifier: AttributeClassifier, encoded: Encoded) -> AttributeClassifier:
    """Adds the scores on the real held-out images ``encoded``."""
    predictions = classifier.predict_uint8(encoded.images)
    scores: dict[str, dict[str, Any]] = {"attribute": {}, "factor": {}, "label": {}}
    for target in targets(encoded, classifier.attribute_names, classifier.factor_names):
        indices = np.flatnonzero(~np.isnan(target.values))
        if len(indices) < 2 * MIN_MINORITY or np.ptp(target.values[indices]) == 0:
            continue
        if (
            target.kind == "attribute"
            and np.bincount(target.values[indices].astype(int), minlength=2).min() < MIN_MINORITY
        ):
            continue
        if target.kind == "label" and not len(classifier.classes):
            continue
        truth, predicted = target.values[indices], _predicted(classifier, predictions, target)[indices]
        score = SCORES[target.kind]
        entry = {
            SCORE_NAMES[target.kind]: float(score(truth, predicted)[0]),
            "interval": interval(score(truth, predicted, resamples(len(indices)))),
            "n": len(indices),
            "chance": chance(target.kind, truth),
        }
        if target.kind == "attribute":
            entry["accuracy"] = float(((predicted > 0.5) == (truth > 0.5)).mean())
        scores[target.kind][target.name] = entry
    return replace(classifier, scores=scores)
