"""Probes: how well the code of each layer alone predicts attributes, factors and labels of held-out images.

A linear probe shows what is easy to read from a code. Boosted trees and an MLP show what information the code holds:
trees find thresholds in single dimensions, the MLP what is spread over many. All are fitted on codes of training
images and scored on held-out images, which neither the model nor a probe has seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analysis.inputs.context import Progress
from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import FIT_LIMIT, Sample, Target
from analysis.probes.mlp import EPOCHS, MlpPredictions, mlp_predictions
from analysis.probes.scores import MIN_MINORITY, SCORE_NAMES, SCORES, Kind, chance

MAX_LABELS = 50  # the most frequent: trees are grown for each, and a page has no space for more
MARGIN = 0.02  # above chance that an interval must stay: the best of several layers exceeds it by luck alone
SEED = 0
TREES: dict[str, Any] = {
    # against 255 bins, 80 trees and all features: half the time, mean score of photographs' factors lower by 0.006
    "max_bins": 63,
    "learning_rate": 0.15,
    "max_iter": 60,
    "max_leaf_nodes": 15,
    "early_stopping": True,
    "n_iter_no_change": 8,
    "validation_fraction": 0.15,
    "random_state": SEED,
}
FEATURE_SHARE, MANY_FEATURES = 0.3, 16  # share of the dimensions that a split may use, where a code has many


def _predict(kind: Kind, linear: bool, fit: tuple[np.ndarray, np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Predictions (or scores, for an attribute) for ``codes`` of a probe fitted on ``fit`` = (codes, values)."""
    x, y = fit
    trees: dict[str, Any] = TREES | {"max_features": FEATURE_SHARE if x.shape[1] >= MANY_FEATURES else 1.0}
    if kind == "factor":
        estimator: Any = make_pipeline(StandardScaler(), Ridge()) if linear else HistGradientBoostingRegressor(**trees)
        return estimator.fit(x, y).predict(codes)
    if linear:
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    else:
        estimator = HistGradientBoostingClassifier(**trees)
    estimator.fit(x, y)
    return estimator.predict_proba(codes)[:, 1] if kind == "attribute" else estimator.predict(codes)


def _indices(fit: Target, scored: Target) -> tuple[np.ndarray, np.ndarray] | None:
    """Indices of the samples to fit and to score on; None where the target is too constant for either."""
    indices = [np.flatnonzero(~np.isnan(target.values)) for target in (fit, scored)]
    indices[0] = indices[0][:FIT_LIMIT]
    for target, known in zip((fit, scored), indices, strict=True):
        values = target.values[known]
        if len(known) < 2 * MIN_MINORITY or np.ptp(values) == 0:
            return None
        if target.kind == "attribute" and np.bincount(values.astype(int), minlength=2).min() < MIN_MINORITY:
            return None
    if scored.kind == "label":  # trees split their samples by class and need two of each
        names, counts = np.unique(fit.values[indices[0]], return_counts=True)
        usual = names[counts >= MIN_MINORITY][np.argsort(-counts[counts >= MIN_MINORITY], kind="stable")[:MAX_LABELS]]
        indices = [known[np.isin(t.values[known], usual)] for t, known in zip((fit, scored), indices, strict=True)]
        few = len(indices[1]) < 2 * MIN_MINORITY
        if few or any(len(np.unique(t.values[i])) < 2 for t, i in zip((fit, scored), indices, strict=True)):
            return None
    return indices[0], indices[1]


def code_sets(sample: Sample) -> list[np.ndarray]:
    """The inputs of the probes: the codes of each layer, (n, d_l), bottom first, then of all together, (n, Σd)."""
    return [*sample.layers, np.hstack(list(sample.layers))]


def probe(
    target: Target, fitted: Sample, scored: Sample, mlps: Sequence[MlpPredictions] | None
) -> dict[str, Any] | None:
    """Scores one target of ``scored`` from the code of each layer and from all together, by every probe.

    Args:
        target: of the images ``scored``.
        fitted: the images that probes are fitted on.
        scored: the images that they are scored on.
        mlps: what the MLPs predict for ``scored`` from each of the ``code_sets``; None = linear probes only, whose
            scores then choose ``best_layer``.

    Returns:
        The score's name (``auc``, ``r2`` or ``accuracy``) for boosted trees, and the same with ``_linear`` and
        ``_mlp``: a list per layer; with ``_all`` appended, from all layers; ``…_interval``, 95 % bootstrap; ``chance``;
        ``best_layer`` by trees, and ``best_layer_significant``: its interval lies clearly above chance; ``n`` scored
        and ``n_fit``. None where the target is too constant to score, or unknown in ``fitted``.
    """
    known = fitted.find(target.kind, target.name)
    indices = None if known is None else _indices(known, target)
    if known is None or indices is None:
        return None
    fit, score_on = indices
    name, score = SCORE_NAMES[target.kind], SCORES[target.kind]
    truth = target.values[score_on]
    pairs = [(a[fit], b[score_on]) for a, b in zip(code_sets(fitted), code_sets(scored), strict=True)]
    result: dict[str, Any] = {}
    seen_values = known.values[fit]
    predictions = {
        f"{name}_linear": [_predict(target.kind, True, (seen, seen_values), asked) for seen, asked in pairs],
    }
    if mlps is not None:
        predictions[name] = [_predict(target.kind, False, (seen, seen_values), asked) for seen, asked in pairs]
        predictions[f"{name}_mlp"] = [each[target.kind, target.name][score_on] for each in mlps]
    for key, predicted in predictions.items():
        values = [float(score(truth, prediction)[0]) for prediction in predicted]
        intervals = [interval(score(truth, prediction, resamples(len(truth)))) for prediction in predicted]
        result |= {key: values[:-1], f"{key}_all": values[-1]}
        result |= {f"{key}_interval": intervals[:-1], f"{key}_all_interval": intervals[-1]}
    main = f"{name}_linear" if mlps is None else name
    best = int(np.argmax(result[main]))
    by_chance = chance(target.kind, truth)
    return result | {
        "best_layer": best,
        "best_layer_significant": result[f"{main}_interval"][best][0] > by_chance + MARGIN,
        "chance": by_chance,
        "n": len(score_on),
        "n_fit": len(fit),
    }


def _one_thread() -> None:
    """A probe of a few thousand samples is five times slower on many threads than on one."""
    threadpool_limits(1)


def probe_all(
    fitted: Sample, scored: Sample, progress: Progress, linear_only: bool = False
) -> dict[str, dict[str, Any]]:
    """Probes every target of ``scored``, several at a time.

    Args:
        fitted: the images that probes are fitted on.
        scored: the images that they are scored on.
        progress: told what is being done.
        linear_only: fit neither boosted trees nor MLPs.

    Returns:
        ``attributes``, ``factors`` and ``labels``, each {name: what ``probe`` gives}.
    """
    tables: dict[str, dict[str, Any]] = {"attributes": {}, "factors": {}, "labels": {}}
    if not scored.targets:
        return tables
    mlps = None
    if not linear_only:
        mlps = mlp_predictions(fitted.targets, code_sets(fitted), code_sets(scored), progress("MLP probes", EPOCHS))
    advance = progress("linear probes" if linear_only else "linear and boosted-trees probes", len(scored.targets))
    with ThreadPoolExecutor(os.cpu_count(), initializer=_one_thread) as pool:
        results = pool.map(lambda target: probe(target, fitted, scored, mlps), scored.targets)
        for target, result in zip(scored.targets, results, strict=True):
            advance(1)
            if result is not None:
                tables[f"{target.kind}s"][target.name] = result
    return tables
