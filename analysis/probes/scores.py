"""Scores of predictions, and 95 % intervals of figures.

When other images are drawn, a figure moves to first order by the mean of its influence values, one for each image. Its
standard error is their standard deviation over √n (the infinitesimal jackknife, Efron 1982, chapter 6; for the AUC
DeLong et al. 1988). One pass over the images gives what a bootstrap needs hundreds for.

Shape letter: n images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

MIN_MINORITY = 8  # images of each class, or a score means nothing
Kind = Literal["attribute", "factor", "label"]
QUANTILE = 1.96  # of the normal distribution: 95 %


@dataclass(frozen=True)
class Estimate:
    """A figure of n images with its influence values (n,), and the least and the most that it can be."""

    value: float
    influence: np.ndarray
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def interval(self, clusters: np.ndarray | None = None) -> list[float]:
        """95 % interval [low, high]; with ``clusters`` (n,) int, whole clusters are drawn instead of images."""
        influence = self.influence
        if clusters is not None:
            _, member = np.unique(clusters, return_inverse=True)
            sums = np.bincount(member, influence)
            influence = sums * (len(sums) / len(influence))
        reach = QUANTILE * influence.std() / np.sqrt(len(influence))
        return [float(end) for end in np.clip([self.value - reach, self.value + reach], *self.bounds)]

    def entry(self, name: str) -> dict[str, Any]:
        """The figure and its interval as metrics.json holds them."""
        return {name: self.value, f"{name}_interval": self.interval()}


def by_layer(name: str, values: Sequence[float], intervals: Sequence[list[float]]) -> dict[str, Any]:
    """Figures of each layer and, last, of all together, with their intervals, as metrics.json holds them."""
    return {name: [*values[:-1]], f"{name}_all": values[-1]} | {
        f"{name}_interval": [*intervals[:-1]],
        f"{name}_all_interval": intervals[-1],
    }


def mean(values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """The mean of values (n,)."""
    value = float(values.mean())
    return Estimate(value, values - value, bounds)


def ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    """mean(above) / mean(below) of pairs (n,), (n,)."""
    scale = max(float(below.mean()), 1e-12)
    value = float(above.mean()) / scale
    return Estimate(value, (above - value * below) / scale)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several figures of the same images."""
    influence = np.mean([each.influence for each in estimates], 0)
    return Estimate(float(np.mean([each.value for each in estimates])), influence, estimates[0].bounds)


def auc(truth: np.ndarray, score: np.ndarray) -> Estimate:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting half.

    Args:
        truth: (n,) 0 or 1.
        score: (n,) larger for what is predicted to be positive.

    Returns:
        The estimate; its value is NaN where there is only one class.
    """
    positive = truth > 0.5
    count = positive.sum(), (~positive).sum()
    influence = np.full(len(truth), np.nan)
    if min(count) == 0:
        return Estimate(np.nan, influence)
    ranks = rankdata(score)
    beaten = (ranks[positive] - rankdata(score[positive])) / count[1]  # share of the negatives below each positive
    above = 1 - (ranks[~positive] - rankdata(score[~positive])) / count[0]
    value = float(beaten.mean())
    influence[positive] = (beaten - value) / positive.mean()
    influence[~positive] = (above - value) / (1 - positive.mean())
    return Estimate(value, influence, (0.0, 1.0))


def r_squared(truth: np.ndarray, prediction: np.ndarray) -> Estimate:
    """1 − residual over total sum of squares of (n,) and (n,); 0 = no better than the mean."""
    errors, spread = (truth - prediction) ** 2, (truth - truth.mean()) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        share = errors.mean() / spread.mean()
        return Estimate(float(1 - share), (share * spread - errors) / spread.mean(), (-np.inf, 1.0))


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> Estimate:
    """Share of equal labels of (n,) and (n,)."""
    return mean((truth == prediction).astype(float), (0.0, 1.0))


SCORES: dict[Kind, Callable[[np.ndarray, np.ndarray], Estimate]] = {
    "attribute": auc,
    "factor": r_squared,
    "label": accuracy,
}
SCORE_NAMES: dict[Kind, str] = {"attribute": "auc", "factor": "r2", "label": "accuracy"}


def chance(kind: Kind, truth: np.ndarray) -> float:
    """The score of the best guess that does not look at the image."""
    if kind == "label":
        return float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    return 0.5 if kind == "attribute" else 0.0


def varies(kind: Kind, truth: np.ndarray) -> bool:
    """Whether known values (n,) differ enough to be scored."""
    if len(truth) < 2 * MIN_MINORITY or np.ptp(truth) == 0:
        return False
    return kind != "attribute" or min((truth > 0.5).sum(), (truth <= 0.5).sum()) >= MIN_MINORITY
