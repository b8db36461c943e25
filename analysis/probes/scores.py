"""Scores of predictions over weighted samples: all resamples of a bootstrap in a few array operations.

Shape letters: n samples, R sets of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

MIN_MINORITY = 8  # samples of each class, or a score means nothing
Kind = Literal["attribute", "factor", "label"]


def auc(truth: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting half.

    Args:
        truth: (n,) 0 or 1.
        score: (n,) larger for what is predicted to be positive.
        weights: (R, n) of the samples; None for one set of ones.

    Returns:
        (R,), NaN where a set has only one class.
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # of each run of equal scores
    positive = truth[order] > 0.5
    ordered = weights.T[order]  # samples first: rows of a sample are contiguous in what `resamples` gives
    p, n = np.where(positive[:, None], ordered, 0), np.where(positive[:, None], 0, ordered)
    if len(starts) < len(order):
        p, n = np.add.reduceat(p, starts, axis=0), np.add.reduceat(n, starts, axis=0)
    below = np.cumsum(n, axis=0, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = n.sum(0, dtype=float) * p.sum(0, dtype=float)
        return np.einsum("nr,nr->r", p, below - n / 2) / total


def r_squared(truth: np.ndarray, prediction: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """1 − residual over total sum of squares, (R,); 0 = no better than the mean. Arguments as of ``auc``."""
    weights = np.ones((1, len(truth))) if weights is None else weights
    centered = truth - truth.mean()  # else the difference of two large sums
    total = weights.sum(1)
    spread = weights @ (centered * centered) - (weights @ centered) ** 2 / total
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (weights @ ((truth - prediction) ** 2)) / spread


def accuracy(truth: np.ndarray, prediction: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of equal labels, (R,). Arguments as of ``auc``."""
    weights = np.ones((1, len(truth))) if weights is None else weights
    return weights @ (truth == prediction).astype(weights.dtype) / weights.sum(1)


SCORES: dict[Kind, Callable[..., np.ndarray]] = {"attribute": auc, "factor": r_squared, "label": accuracy}
SCORE_NAMES: dict[Kind, str] = {"attribute": "auc", "factor": "r2", "label": "accuracy"}


def chance(kind: Kind, truth: np.ndarray) -> float:
    """The score of the best guess that does not look at the sample."""
    if kind == "label":
        return float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    return 0.5 if kind == "attribute" else 0.0
