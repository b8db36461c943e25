"""What each layer knows: how well its code alone predicts attributes, factors and labels on held-out images.

Two readers are fitted, because they answer two questions: a linear one (is it *readable*?) and boosted trees (is the
*information* there?). Both are fitted on one half of the held-out images and scored on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis.subject import Encoded

Kind = Literal["attribute", "factor", "label"]

FIT_LIMIT = 6000  # samples; beyond it the readers hardly improve
TREES = 60
MIN_MINORITY = 8  # of each class in each half, or a score means nothing
RESAMPLES = 200
SEED = 0


@dataclass(frozen=True)
class Target:
    """Something to predict: values (n,) with NaN where unknown."""

    kind: Kind
    name: str
    values: np.ndarray


def targets(encoded: Encoded, attributes: tuple[str, ...], factors: tuple[str, ...]) -> Iterator[Target]:
    """All attributes, factors and the label that vary in ``encoded``."""
    notes = encoded.annotations
    for column, name in enumerate(attributes):
        known = notes.attributes[:, column].astype(float)
        yield Target("attribute", name, np.where(known < 0, np.nan, known))
    for column, name in enumerate(factors):
        yield Target("factor", name, notes.factors[:, column].astype(float))
    label = notes.label.astype(float)
    if (label >= 0).any():
        yield Target("label", "label", np.where(label < 0, np.nan, label))


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    first = np.searchsorted(ordered, ordered, "left")
    last = np.searchsorted(ordered, ordered, "right")
    ranks = np.empty(len(score))
    ranks[order] = (first + last + 1) / 2  # mean rank of ties, from 1
    positives = truth > 0.5
    p, n = int(positives.sum()), int((~positives).sum())
    return float((ranks[positives].sum() - p * (p + 1) / 2) / (p * n))


def r_squared(truth: np.ndarray, prediction: np.ndarray) -> float:
    """1 − residual over total sum of squares; 0 = no better than the mean."""
    return float(1 - ((truth - prediction) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Share of equal labels."""
    return float((truth == prediction).mean())


SCORES: dict[Kind, Callable[[np.ndarray, np.ndarray], float]] = {
    "attribute": auc,
    "factor": r_squared,
    "label": accuracy,
}


def interval(kind: Kind, truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a score over the scored samples."""
    rng = np.random.default_rng(SEED)
    score = SCORES[kind]
    values = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(truth), len(truth))
        if kind == "label" or np.ptp(truth[rows]) > 0:
            values.append(score(truth[rows], prediction[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _predict(kind: Kind, linear: bool, fit: tuple[np.ndarray, np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Predictions (or scores, for an attribute) on ``codes`` of a reader fitted on ``fit`` = (codes, values)."""
    x, y = fit
    if kind == "factor":
        if linear:
            return make_pipeline(StandardScaler(), Ridge()).fit(x, y).predict(codes)
        return HistGradientBoostingRegressor(max_iter=TREES, random_state=SEED).fit(x, y).predict(codes)
    if linear:
        reader: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    else:
        reader = HistGradientBoostingClassifier(max_iter=TREES, random_state=SEED)
    reader.fit(x, y)
    return reader.predict_proba(codes)[:, 1] if kind == "attribute" else reader.predict(codes)


def _halves(target: Target) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows to fit and to score on; None where the target is too constant for either."""
    known = np.flatnonzero(~np.isnan(target.values))
    mixed = np.random.default_rng(SEED).permutation(known)
    fit, scored = mixed[: len(mixed) // 2][:FIT_LIMIT], mixed[len(mixed) // 2 :]
    for rows in (fit, scored):
        if len(rows) < 2 * MIN_MINORITY or np.ptp(target.values[rows]) == 0:
            return None
        if (
            target.kind == "attribute"
            and np.bincount(target.values[rows].astype(int), minlength=2).min() < MIN_MINORITY
        ):
            return None
    return fit, scored


def probe(target: Target, layers: list[np.ndarray]) -> dict[str, Any] | None:
    """Scores of one target from each layer's code (n, d_l) alone and from all together, by both readers.

    Keys: the score's name (``auc``, ``r2`` or ``accuracy``) for boosted trees and the same with ``_linear``: a list per
    layer; with ``_all`` appended: all layers; ``…_interval``: 95 % bootstrap; ``best_layer``; ``n`` scored. None
    where the target is too constant to score.
    """
    split = _halves(target)
    if split is None:
        return None
    fit, scored = split
    name = {"attribute": "auc", "factor": "r2", "label": "accuracy"}[target.kind]
    truth = target.values[scored]
    result: dict[str, Any] = {}
    for linear in (False, True):
        key = f"{name}_linear" if linear else name
        scores, intervals = [], []
        for codes in [*layers, np.concatenate(layers, axis=1)]:
            predicted = _predict(target.kind, linear, (codes[fit], target.values[fit]), codes[scored])
            scores.append(SCORES[target.kind](truth, predicted))
            intervals.append(interval(target.kind, truth, predicted))
        result |= {key: scores[:-1], f"{key}_all": scores[-1]}
        result |= {f"{key}_interval": intervals[:-1], f"{key}_all_interval": intervals[-1]}
    result["best_layer"] = int(np.argmax(result[name]))
    result["n"] = len(scored)
    return result
