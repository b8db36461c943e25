"""Disentanglement scores where the factors of variation are known: DCI, MIG, SAP.

Letters in shapes: n samples, D code dimensions (of one layer, or of all together), K factors. A score is 1 where every
factor sits in one code dimension of its own (DCI: and every dimension holds one factor), and 0 where all is mixed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import random_halves
from analysis.probes.scores import r_squared

BINS = 20
FOREST = 30  # trees
LIMIT = 3000  # samples; estimates hardly move beyond
FEWEST = 16  # samples
RESAMPLES = 20
SEED = 0


def _entropy(p: np.ndarray, axis: int) -> np.ndarray:
    """Entropy of distributions along ``axis``, divided by its largest value; 0 where there is one outcome."""
    size = p.shape[axis]
    if size == 1:
        return np.zeros(np.delete(p.shape, axis))
    return _surprise(p).sum(axis) / np.log(size)


def disentanglement_and_completeness(importance: np.ndarray) -> tuple[float, float]:
    """From importances (D, K) ≥ 0 of code dimensions for factors (Eastwood and Williams 2018, section 2).

    Disentanglement: 1 − entropy over factors of each dimension's row, weighted by the dimension's share of all
    importance. Completeness: mean over factors of 1 − entropy over dimensions of its column.
    """
    total = importance.sum()
    if total <= 0:
        return 0.0, 0.0
    per_row = importance.sum(1, keepdims=True)
    rows = importance / np.where(per_row > 0, per_row, 1)
    disentanglement = float(((1 - _entropy(rows, 1)) * per_row[:, 0]).sum() / total)
    per_column = importance.sum(0, keepdims=True)
    columns = importance / np.where(per_column > 0, per_column, 1)
    used = per_column[0] > 0
    return disentanglement, float((1 - _entropy(columns, 0))[used].mean())


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    identity: np.ndarray | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, float], np.ndarray]:
    """DCI (Eastwood and Williams 2018) by forests of random trees, fitted on half of the images, scored on the rest.

    Args:
        codes: (n, D).
        factors: (n, K), all known.
        identity: (n,), nobody of which is in both halves; −1, or no identities: every image is somebody else's.
        advance: called with 1 when another factor is done.

    Returns:
        ``disentanglement``, ``completeness``, ``informativeness`` (mean R² over factors, negative ones as 0); and the
        importances (D, K), each factor's scaled by its R² so that what is not known does not count.
    """
    fit, scored = random_halves(len(codes), identity)
    importance = np.zeros((codes.shape[1], factors.shape[1]))
    informativeness = np.zeros(factors.shape[1])
    for k in range(factors.shape[1]):
        forest = ExtraTreesRegressor(
            FOREST, min_samples_leaf=4, max_features=0.5, n_jobs=os.cpu_count(), random_state=SEED
        ).fit(codes[fit], factors[fit, k])
        informativeness[k] = max(0.0, r_squared(factors[scored, k], forest.predict(codes[scored])).value)
        importance[:, k] = forest.feature_importances_ * informativeness[k]
        advance(1)
    d, c = disentanglement_and_completeness(importance)
    scores = {"disentanglement": d, "completeness": c, "informativeness": float(informativeness.mean())}
    return scores, importance


def binned(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Each column of (n, D) in ``bins`` bins of equal width over its range; columns of fewer values keep those."""
    columns = []
    for column in values.T:
        distinct, codes = np.unique(column, return_inverse=True)
        if len(distinct) > bins:
            edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]
            codes = np.digitize(column, edges)
        columns.append(codes)
    return np.stack(columns, axis=1)


def mutual_information(codes: np.ndarray, factors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """I(z_j; v_k) / H(v_k) of binned (n, D) and (n, K), ``weights`` (n,) of the samples: (D, K) in [0, 1]."""
    bins, values = codes.max() + 1, factors.max(0) + 1
    starts = np.cumsum([0, *values[:-1]])  # the values of all factors lie in one row of each histogram
    cells = (bins, values.sum())
    weight = np.repeat(np.ones(len(codes)) if weights is None else weights.astype(float), len(starts))
    places = factors + starts
    histograms = (
        np.bincount((column[:, None] * cells[1] + places).ravel(), weight, minlength=np.prod(cells)).reshape(cells)
        for column in codes.T
    )
    joint = np.stack(list(histograms)) / weight[:: len(starts)].sum()  # (D, bins, values)
    h_joint = np.add.reduceat(_surprise(joint).sum(1), starts, axis=1)
    h_z = _surprise(joint[:, :, : values[0]].sum(2)).sum(1, keepdims=True)
    h_v = np.add.reduceat(_surprise(joint[:1].sum(1)), starts, axis=1)
    return np.where(h_v > 0, (h_z + h_v - h_joint) / np.where(h_v > 0, h_v, 1), 0.0)


def _surprise(p: np.ndarray) -> np.ndarray:
    """−p log p, 0 where p is 0."""
    return -p * np.log(np.where(p > 0, p, 1.0))


def top_gap(scores: np.ndarray) -> float:
    """Mean over factors of the best minus the second-best dimension's score, (D, K); the best alone where D = 1."""
    ordered = np.sort(scores, axis=0)
    second = ordered[-2] if len(ordered) > 1 else 0
    return float((ordered[-1] - second).mean())


def squared_correlation(codes: np.ndarray, factors: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """R² of each factor from each code dimension by a line, over weighted samples: (D, K)."""
    w = np.ones(len(codes)) if weights is None else weights.astype(float)
    z = codes - np.average(codes, axis=0, weights=w)
    v = factors - np.average(factors, axis=0, weights=w)
    covariance = (z * w[:, None]).T @ v
    spread = (w @ z**2)[:, None] * (w @ v**2)[None, :]
    return np.where(spread > 0, covariance**2 / np.where(spread > 0, spread, 1), 0.0)


def _gaps(name: str, point: np.ndarray, resampled: np.ndarray, rows: slice) -> dict[str, Any]:
    """``top_gap`` of the dimensions ``rows`` of (D, K), and its interval from (R, D, K)."""
    ends = interval(np.array([top_gap(scores[rows]) for scores in resampled]))
    return {name: top_gap(point[rows]), f"{name}_interval": ends}


def _usable(factors: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Rows (of the first LIMIT that can be used) and columns of (n, K) in which all is known and nothing constant.

    A factor that is unknown in half of the images or more is left out; then the images of which one is unknown.
    """
    known = np.isfinite(factors)
    columns = [k for k in range(factors.shape[1]) if known[:, k].mean() > 0.5]
    rows = np.flatnonzero(known[:, columns].all(1))[:LIMIT]
    if len(rows) < FEWEST:
        return rows, []
    return rows, [k for k in columns if np.ptp(factors[rows, k]) > 0]


def disentanglement(
    layers: Sequence[np.ndarray],
    factors: np.ndarray,
    identity: np.ndarray | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Scores how well single dimensions of the codes separate the factors.

    Args:
        layers: codes (n, d_l), bottom first.
        factors: (n, K), NaN where unknown; those that are mostly unknown or constant are left out.
        identity: (n,) as for ``dci``.
        advance: called with 1 when another factor is done.

    Returns:
        Over the dimensions of all layers together, ``dci``; ``mig``: mutual information gap (Chen et al. 2018, eq. 6);
        ``sap``: separated attribute predictability (Kumar et al. 2018, section 3), both with 95 % intervals;
        ``importance`` (D, K); ``n`` images; ``factors``, the columns that were used. ``layers`` has the scores of each
        layer's dimensions. {} without factors.
    """
    chosen, usable = _usable(factors)
    if not usable:
        return {}
    v = factors[chosen][:, usable].astype(float)
    z = np.concatenate(layers, axis=1)[chosen].astype(float)
    bins, weights = (binned(z), binned(v)), resamples(len(z))[:RESAMPLES]
    information = mutual_information(*bins), np.stack([mutual_information(*bins, w) for w in weights])
    lines = squared_correlation(z, v), np.stack([squared_correlation(z, v, w) for w in weights])
    parts, importance = dci(z, v, None if identity is None else identity[chosen], advance)

    def scores(rows: slice) -> dict[str, Any]:
        d, c = disentanglement_and_completeness(importance[rows])
        own = {"dci": {"disentanglement": d, "completeness": c}}
        return own | _gaps("mig", *information, rows) | _gaps("sap", *lines, rows)

    ends = np.cumsum([0, *(layer.shape[1] for layer in layers)])
    result = scores(slice(None)) | {"dci": parts, "n": len(v), "factors": usable}
    result["importance"] = np.round(importance, 4).tolist()
    result["layers"] = [scores(slice(a, b)) for a, b in pairwise(ends)]
    return result
