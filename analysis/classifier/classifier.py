"""The classifier: a small convolutional network that reads attributes, factors and labels off a picture.

It is trained on *real* images of the train split and examined on held-out ones, and then asked about decoded images.
It never sees the ladder: what it says of a decoded image is independent of the codes. Whatever it cannot read off
held-out real images it is not asked about.
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
from analysis.probes.scores import MIN_MINORITY, SCORE_NAMES, SCORES, chance
from analysis.probes.teaching import PartialLabels, masked_multitask_loss
from pipeline.model.pixels import from_array
from preprocess.shards.reader import Annotations

WIDTHS = (16, 32, 64, 96)
FEATURES = 96
LARGEST = 64  # pixels a side; larger images are averaged down
TRAIN_BATCH = 64
LEARNING_RATE = 4e-3
MIN_SKILL = {"attribute": 0.5, "factor": 0.3, "label": 0.45}
"""How far a held-out score must be on the way from chance to 1 for it to be asked: an AUC of 0.75, an R² of 0.3."""
SEED = 0


class Predictions(NamedTuple):
    """What the classifier reads off n images, on the CPU, float32."""

    attributes: Tensor  # (n, A) probability of each
    factors: Tensor  # (n, F) on the factor's own scale
    labels: Tensor  # (n, K) probability of each; K = 0 where the data has no labels
    features: Tensor  # (n, FEATURES), of the last hidden layer


class _Network(nn.Module):
    """Images (B, C, H, W) in [−1, 1] to answers (B, A + F + K) and features (B, FEATURES)."""

    def __init__(self, channels: int, answers: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, WIDTHS, strict=False)
        ]
        self.trunk = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(WIDTHS[-1] * 16, FEATURES, bias=False), nn.BatchNorm1d(FEATURES))
        self.answers = nn.Linear(FEATURES, answers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-1] > LARGEST:
            images = F.adaptive_avg_pool2d(images, LARGEST)
        features = F.relu(self.hidden(self.trunk(images)))
        return self.answers(features), features


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained classifier with its examination: ``scores[kind][name]`` = {auc or r2 or accuracy, interval, n}."""

    network: _Network
    device: torch.device
    attribute_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    factor_mean: Tensor  # (F,)
    factor_std: Tensor  # (F,)
    classes: np.ndarray  # (K,) the labels, ascending
    n_train: int
    scores: dict[str, dict[str, Any]]

    def is_reliable(self, kind: str, name: str) -> bool:
        """Whether it reads this off held-out real images well enough to be asked about decoded ones."""
        found = self.scores[kind].get(name)
        if found is None:
            return False
        way = (found[SCORE_NAMES[kind]] - found["chance"]) / (1 - found["chance"])  # type: ignore[index]
        return way >= MIN_SKILL[kind]

    def reliable_attributes(self) -> list[int]:
        """Columns of the attributes that it knows."""
        return [i for i, name in enumerate(self.attribute_names) if self.is_reliable("attribute", name)]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Predictions:
        """Reads images (n, C, H, W) in [−1, 1], any device."""
        parts = []
        for start in range(0, len(images), BATCH):
            chunk = images[start : start + BATCH].to(self.device, memory_format=torch.channels_last)
            parts.append([t.float().cpu() for t in self.network(chunk)])
        answers, features = (torch.cat(p) for p in zip(*parts, strict=True))
        a, f = len(self.attribute_names), len(self.factor_names)
        return Predictions(
            answers[:, :a].sigmoid(),
            answers[:, a : a + f] * self.factor_std + self.factor_mean,
            answers[:, a + f :].softmax(1),
            features,
        )

    def predict_uint8(self, images: np.ndarray) -> Predictions:
        """Reads uint8 images (n, H, W, C)."""
        return Predictions(*(torch.cat(parts) for parts in zip(*map(self, in_chunks(images)), strict=True)))


def _known(notes: Annotations, classes: np.ndarray, mean: Tensor, std: Tensor) -> PartialLabels:
    labels = np.where(np.isin(notes.label, classes), np.searchsorted(classes, notes.label), -1)
    attributes = torch.from_numpy(notes.attributes).float()
    attributes[attributes < 0] = torch.nan
    return PartialLabels(attributes, (torch.from_numpy(notes.factors) - mean) / std, torch.from_numpy(labels))


def _softened(images: Tensor) -> Tensor:
    """Every other image blurred (halved and enlarged again): decoded images are softer than real ones."""
    small = F.avg_pool2d(images[::2], 2, ceil_mode=True)
    images[::2] = F.interpolate(small, images.shape[-2:], mode="bilinear")
    return images


def _rate(steps: int, step: int) -> float:
    """Share of the learning rate: up over the first fifth, then down a cosine to 0."""
    return min((step + 1) / (0.2 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def train_attribute_classifier(
    images: np.ndarray,
    notes: Annotations,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    device: torch.device,
    shown: int,
    advance: Callable[[int], None],
) -> AttributeClassifier | None:
    """A classifier, not yet examined, from uint8 images (n, H, W, C) shown ``shown`` times in all.

    ``names`` are those of the attributes and of the factors; ``advance(k)`` as k more were shown. None where nothing
    is annotated, or fewer images than a batch. The same images give the same classifier on one machine.
    """
    classes = classes_of(notes.label)
    answers = len(names[0]) + len(names[1]) + len(classes)
    if answers == 0 or len(images) < TRAIN_BATCH:
        return None
    mean = torch.from_numpy(np.nan_to_num(np.nanmean(notes.factors, axis=0, dtype=float))).float()
    std = torch.from_numpy(np.nan_to_num(np.nanstd(notes.factors, axis=0, dtype=float))).float().clamp(min=1e-6)
    known = _known(notes, classes, mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _Network(images.shape[-1], answers).to(device).train()
    network.to(memory_format=torch.channels_last)
    steps = max(1, shown // TRAIN_BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps))
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(-(-steps * TRAIN_BATCH // len(images)))])
    for step in range(steps):
        rows = order[step * TRAIN_BATCH : (step + 1) * TRAIN_BATCH]
        x = _softened(from_array(images[rows], device))
        batch = PartialLabels(*(t[torch.from_numpy(rows)].to(device) for t in known))
        optimizer.zero_grad(set_to_none=True)
        masked_multitask_loss(network(x)[0], batch).backward()
        optimizer.step()
        schedule.step()
        advance(TRAIN_BATCH)
    network.eval().requires_grad_(False)
    return AttributeClassifier(network, device, names[0], names[1], mean, std, classes, len(images), {})


def _answer(classifier: AttributeClassifier, predictions: Predictions, target: Target) -> np.ndarray:
    """The classifier's answers (n,) to one target."""
    if target.kind == "attribute":
        return predictions.attributes[:, classifier.attribute_names.index(target.name)].numpy()
    if target.kind == "factor":
        return predictions.factors[:, classifier.factor_names.index(target.name)].numpy()
    return classifier.classes[predictions.labels.argmax(1).numpy()].astype(float)


def score_classifier(classifier: AttributeClassifier, encoded: Encoded) -> AttributeClassifier:
    """The classifier with its scores on held-out real images filled in."""
    predictions = classifier.predict_uint8(encoded.images)
    scores: dict[str, dict[str, Any]] = {"attribute": {}, "factor": {}, "label": {}}
    for target in targets(encoded, classifier.attribute_names, classifier.factor_names):
        rows = np.flatnonzero(~np.isnan(target.values))
        if len(rows) < 2 * MIN_MINORITY or np.ptp(target.values[rows]) == 0:
            continue
        if target.kind == "attribute" and np.bincount(target.values[rows].astype(int)).min() < MIN_MINORITY:
            continue
        if target.kind == "label" and not len(classifier.classes):
            continue
        truth, answer = target.values[rows], _answer(classifier, predictions, target)[rows]
        score = SCORES[target.kind]
        entry = {
            SCORE_NAMES[target.kind]: float(score(truth, answer)[0]),
            "interval": interval(score(truth, answer, resamples(len(rows)))),
            "n": len(rows),
            "chance": chance(target.kind, truth),
        }
        if target.kind == "attribute":
            entry["accuracy"] = float(((answer > 0.5) == (truth > 0.5)).mean())
        scores[target.kind][target.name] = entry
    return replace(classifier, scores=scores)
