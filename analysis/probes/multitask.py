"""Networks that predict all targets at once: what their outputs mean, and their loss where annotations are partial.

Shape letters: n samples, A attributes, F factors, K classes of the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.probes.dataset import Target, classes_of
from analysis.probes.scores import Kind

ByTarget = dict[tuple[Kind, str], np.ndarray]
"""Predictions (n,) by kind and name: the probability of an attribute, the value of a factor, a label."""


class PartialLabels(NamedTuple):
    """Annotations of n images, any of which may be unknown."""

    attributes: Tensor  # (n, A) float32, 0 or 1; NaN where unknown
    factors: Tensor  # (n, F) float32, standardized; NaN where unknown
    labels: Tensor  # (n,) int64, −1 where unknown

    def select(self, indices: Tensor) -> PartialLabels:
        """The labels of some of the images."""
        return PartialLabels(*(values[indices] for values in self))


class Predictions(NamedTuple):
    """Predictions for n images, float32 on the CPU."""

    attributes: Tensor  # (n, A) probability of each
    factors: Tensor  # (n, F) in the units of the factor
    labels: Tensor  # (n, K) probability of each


@dataclass(frozen=True)
class Outputs:
    """The meaning of A + F + K outputs: logits of attributes, standardized factors, logits of classes."""

    attributes: tuple[str, ...]
    factors: tuple[str, ...]
    center: Tensor  # (F,) of the factors
    scale: Tensor  # (F,)
    classes: np.ndarray  # (K,) labels, ascending

    @classmethod
    def of(cls, targets: Sequence[Target]) -> Outputs:
        """The outputs for these targets; a factor that is nowhere known has mean 0 and scale 1e-6."""
        names = {kind: tuple(t.name for t in targets if t.kind == kind) for kind in ("attribute", "factor")}
        values = np.ma.masked_invalid(_columns(targets, "factor"))
        center, scale = (
            torch.from_numpy(np.ma.filled(moment(axis=0), 0.0)).float() for moment in (values.mean, values.std)
        )
        label = next((t.values for t in targets if t.kind == "label"), np.empty(0))
        classes = classes_of(np.nan_to_num(label, nan=-1).astype(np.int64))
        return cls(names["attribute"], names["factor"], center, scale.clamp(min=1e-6), classes)

    def __len__(self) -> int:
        """A + F + K."""
        return len(self.attributes) + len(self.factors) + len(self.classes)

    def labels(self, targets: Sequence[Target]) -> PartialLabels:
        """The values of the targets from which these outputs were made."""
        known = next((t.values for t in targets if t.kind == "label"), np.full(len(targets[0].values), np.nan))
        index = np.where(np.isin(known, self.classes), np.searchsorted(self.classes, np.nan_to_num(known)), -1)
        factors = torch.from_numpy(_columns(targets, "factor")).float()
        return PartialLabels(
            torch.from_numpy(_columns(targets, "attribute")).float(),
            (factors - self.center) / self.scale,
            torch.from_numpy(index),
        )

    def predictions(self, outputs: Tensor) -> Predictions:
        """Reads outputs (n, A + F + K)."""
        a, f, k = outputs.split([len(self.attributes), len(self.factors), len(self.classes)], dim=1)
        return Predictions(a.sigmoid(), f * self.scale + self.center, k.softmax(1))

    def by_target(self, predictions: Predictions) -> ByTarget:
        """The same predictions by kind and name; the label is the most probable one."""
        found: ByTarget = {}
        kinds: tuple[tuple[Kind, tuple[str, ...], Tensor], ...] = (
            ("attribute", self.attributes, predictions.attributes),
            ("factor", self.factors, predictions.factors),
        )
        for kind, names, values in kinds:
            found |= {(kind, name): column.numpy() for name, column in zip(names, values.T, strict=True)}
        if len(self.classes):
            found["label", "label"] = self.classes[predictions.labels.argmax(1).numpy()].astype(float)
        return found


def masked_loss(outputs: Tensor, labels: PartialLabels) -> Tensor:
    """Cross entropy of attributes, squared error of factors and cross entropy of the label, each a mean, added up.

    Args:
        outputs: (…, n, A + F + K).
        labels: of the n images; unknown values do not count.

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


def _columns(targets: Sequence[Target], kind: Kind) -> np.ndarray:
    """Values (n, k) of the targets of a kind."""
    columns = [target.values for target in targets if target.kind == kind]
    return np.stack(columns, 1) if columns else np.empty((len(targets[0].values), 0))
