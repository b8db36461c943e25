"""The attribute classifier: a small convolutional network that predicts attributes, factors and labels of a picture.

It is trained on real images of the train split, scored on real held-out images, and then applied to decoded images.
It never uses the model: its predictions for a decoded image do not depend on the codes. What it cannot predict for
real held-out images (`is_reliable`) is not measured with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.inputs.context import EvalContext, Progress, fast_precision
from analysis.inputs.encode import BATCH, EncodedSplits, in_chunks
from analysis.probes.dataset import Target, targets
from analysis.probes.multitask import Outputs, PartialLabels, Predictions, masked_loss
from analysis.probes.scores import SCORE_NAMES, SCORES, Kind, chance, varies
from pipeline.model.pixels import from_array
from pipeline.training.threads import adaptive_threads

WIDTHS = (16, 32, 64, 96)
FEATURES = 96
LARGEST = 64  # pixels a side; larger images are averaged down
TRAIN_BATCH = 64
LEARNING_RATE = 4e-3
SHOWN_PER_HELD_OUT = 8  # images that the classifier trains on for each held-out image
LEAST_SHOWN, MOST_SHOWN = 6_000, 20_000
MIN_SKILL = {"attribute": 0.5, "factor": 0.3, "label": 0.45}
"""(score − chance) / (1 − chance) on held-out images that makes a prediction reliable: AUC 0.75, R² 0.3."""
SEED = 0


class _Network(nn.Module):
    """Maps images (B, C, H, W) in [−1, 1] to outputs (B, A + F + K) and features (B, FEATURES), float32."""

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
        with fast_precision(images.device):
            features = F.relu(self.hidden(self.trunk(images)))
            return self.outputs(features).float(), features.float()


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained classifier; ``scores[kind][name]`` = {auc, r2 or accuracy; interval, n} on real held-out images."""

    network: _Network
    device: torch.device
    outputs: Outputs
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
        return [i for i, name in enumerate(self.outputs.attributes) if self.is_reliable("attribute", name)]

    def __call__(self, images: Tensor) -> Predictions:
        """Predicts for images (n, C, H, W) in [−1, 1] on any device."""
        return self.outputs.predictions(self._forward(images)[0])

    def features(self, images: Tensor | np.ndarray) -> Tensor:
        """The last hidden layer (n, FEATURES) of images as ``__call__`` takes them, or uint8 (n, H, W, C)."""
        chunks = in_chunks(images) if isinstance(images, np.ndarray) else [images]
        return torch.cat([self._forward(chunk)[1] for chunk in chunks])

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (n, A + F + K) and features (n, FEATURES), float32 on the CPU."""
        parts = []
        for chunk in images.split(BATCH):
            parts.append([t.cpu() for t in self.network(chunk.to(self.device, memory_format=torch.channels_last))])
        outputs, features = (torch.cat(part) for part in zip(*parts, strict=True))
        return outputs, features


def _blur_half(images: Tensor) -> Tensor:
    """Blurs every second image (halved and enlarged again), because decoded images are softer than real ones."""
    small = F.avg_pool2d(images[::2], 2, ceil_mode=True)
    images[::2] = F.interpolate(small, images.shape[-2:], mode="bilinear")
    return images


def _learning_rate_share(steps: int, step: int) -> float:
    """Share of the learning rate: linear up over the first fifth, then a cosine down to 0."""
    return min((step + 1) / (0.2 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))


def train_attribute_classifier(
    images: np.ndarray, known: Sequence[Target], device: torch.device, shown: int, advance: Callable[[int], None]
) -> AttributeClassifier | None:
    """Trains a classifier, still without scores. The same images give the same classifier on one machine.

    Args:
        images: uint8 (n, H, W, C).
        known: targets of these images.
        device: where it is trained and applied.
        shown: images to train on in all, each counted as often as it is used.
        advance: called with the number of images used since the last call.

    Returns:
        The classifier; None where there are no targets, or fewer images than a batch.
    """
    if not known or len(images) < TRAIN_BATCH:
        return None
    outputs = Outputs.of(known)
    labels = outputs.labels(known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _Network(images.shape[-1], len(outputs)).to(device).train()
    network.to(memory_format=torch.channels_last)
    steps = max(1, shown // TRAIN_BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_learning_rate_share, steps))
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(len(images)) for _ in range(-(-steps * TRAIN_BATCH // len(images)))])
    for indices in adaptive_threads(order[: steps * TRAIN_BATCH].reshape(steps, TRAIN_BATCH), device):
        x = _blur_half(from_array(images[indices], device))
        batch = PartialLabels(*(values.to(device) for values in labels.select(torch.from_numpy(indices))))
        optimizer.zero_grad(set_to_none=True)
        masked_loss(network(x)[0], batch).backward()
        optimizer.step()
        schedule.step()
        advance(TRAIN_BATCH)
    network.eval().requires_grad_(False)
    return AttributeClassifier(network, device, outputs, len(images), {})


def score_classifier(
    classifier: AttributeClassifier,
    images: np.ndarray,
    known: Sequence[Target],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Scores predictions of real held-out images.

    Args:
        classifier: the trained one.
        images: uint8 (n, H, W, C).
        known: targets of these images.
        advance: called with the number of images finished since the last call.

    Returns:
        What ``AttributeClassifier.scores`` holds.
    """
    parts = []
    for chunk in in_chunks(images):
        parts.append(classifier(chunk))
        advance(len(chunk))
    predictions = classifier.outputs.by_target(Predictions(*map(torch.cat, zip(*parts, strict=True))))
    scores: dict[str, dict[str, Any]] = {"attribute": {}, "factor": {}, "label": {}}
    for target in known:
        indices = np.flatnonzero(~np.isnan(target.values))
        truth, predicted = target.values[indices], predictions.get((target.kind, target.name))
        if predicted is None or not varies(target.kind, truth):
            continue
        found = SCORES[target.kind](truth, predicted[indices])
        entry = {SCORE_NAMES[target.kind]: found.value, "interval": found.interval(), "n": len(indices)}
        entry["chance"] = chance(target.kind, truth)
        if target.kind == "attribute":
            entry["accuracy"] = float(((predicted[indices] > 0.5) == (truth > 0.5)).mean())
        scores[target.kind][target.name] = entry
    return scores


def fit_classifier(context: EvalContext, splits: EncodedSplits, progress: Progress) -> AttributeClassifier | None:
    """Trains a classifier on the training images and scores it on the held-out ones; None without annotations."""
    manifest = context.shards.manifest
    train, held_out = (
        list(targets(split.annotations, manifest.attribute_names, manifest.factor_names))
        for split in (splits.train, splits.held_out)
    )
    shown = min(MOST_SHOWN, max(LEAST_SHOWN, SHOWN_PER_HELD_OUT * len(splits.held_out)))
    advance = progress("training of the classifier", shown)
    classifier = train_attribute_classifier(splits.train.images, train, context.device, shown, advance)
    if classifier is None:
        return None
    advance = progress("scores of the classifier", len(splits.held_out))
    return replace(classifier, scores=score_classifier(classifier, splits.held_out.images, held_out, advance))
