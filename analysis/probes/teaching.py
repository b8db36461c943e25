"""What is known of images, as a network is taught it: the classifier from pictures, a reader from codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class PartialLabels(NamedTuple):
    """Annotations of n images; NaN where unknown, label −1."""

    attributes: Tensor  # (n, A) float32, 0 or 1
    factors: Tensor  # (n, F) float32, standardised
    labels: Tensor  # (n,) int64

    def of(self, rows: Tensor) -> PartialLabels:
        """Some of the images."""
        return PartialLabels(*(values[rows] for values in self))


def masked_multitask_loss(answers: Tensor, known: PartialLabels) -> Tensor:
    """Mean over what is known of each kind, the kinds added up: cross entropies, and squared error of factors. ()

    ``answers`` (n, A + F + K): logits of attributes, factors, logits of K labels.
    """
    a, f = known.attributes.shape[1], known.factors.shape[1]
    total = answers.sum() * 0
    seen = ~torch.isnan(known.attributes)
    if seen.any():
        total = total + F.binary_cross_entropy_with_logits(answers[:, :a][seen], known.attributes[seen])
    seen = ~torch.isnan(known.factors)
    if seen.any():
        total = total + F.mse_loss(answers[:, a : a + f][seen], known.factors[seen])
    if (known.labels >= 0).any():
        total = total + F.cross_entropy(answers[:, a + f :], known.labels, ignore_index=-1)
    return total
