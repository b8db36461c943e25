"""What each layer knows: how well its code alone predicts attributes, factors and labels on held-out images.

Readers answer two questions: a linear one, is it *readable*? Boosted trees and a small network, is the *information*
there? Trees find thresholds in single numbers, the network what is spread over many. All are fitted on codes of
training images and scored on held-out ones, which neither the ladder nor a reader has seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import Sample, Target
from analysis.probes.mlp import MlpPredictions, mlp_predictions
from analysis.probes.scores import MIN_MINORITY, SCORE_NAMES, SCORES, Kind, chance

FIT_LIMIT = 10_000  # samples; beyond it the readers hardly improve
MOST_LABELS = 50  # the most frequent: trees are grown for each, and a page has no place for more
MARGIN = 0.02  # above chance that an interval must stay: the best of several layers is above it by luck alone
SEED = 0
# small trees that stop when a seventh of the fitted samples sees no gain: they neither memorise noise nor waste time
TREES: dict[str, Any] = {
    "max_iter": 80,
    "max_leaf_nodes": 15,
    "early_stopping": True,
    "n_iter_no_change": 10,
    "validation_fraction": 0.15,
    "random_state": SEED,
}


def _predict(kind: Kind, linear: bool, fit: tuple[np.ndarray, np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Predictions (or scores, for an attribute) on ``codes`` of a reader fitted on ``fit`` = (codes, values)."""
    x, y = fit
    if kind == "factor":
        reader: Any = make_pipeline(StandardScaler(), Ridge()) if linear else HistGradientBoostingRegressor(**TREES)
        return reader.fit(x, y).predict(codes)
    if linear:
        reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    else:
        reader = HistGradientBoostingClassifier(**TREES)
    reader.fit(x, y)
    return reader.predict_proba(codes)[:, 1] if kind == "attribute" else reader.predict(codes)


def _rows(fit: Target, scored: Target) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows to fit and to score on; None where the target is too constant for either."""
    rows = [np.flatnonzero(~np.isnan(target.values)) for target in (fit, scored)]
    rows[0] = rows[0][:FIT_LIMIT]
    for target, known in zip((fit, scored), rows, strict=True):
        values = target.values[known]
        if len(known) < 2 * MIN_MINORITY or np.ptp(values) == 0:
            return None
        if target.kind == "attribute" and np.bincount(values.astype(int), minlength=2).min() < MIN_MINORITY:
            return None
    if scored.kind == "label":  # the readers split their samples by class and need two of each
        names, counts = np.unique(fit.values[rows[0]], return_counts=True)
        usual = names[counts >= MIN_MINORITY][np.argsort(-counts[counts >= MIN_MINORITY], kind="stable")[:MOST_LABELS]]
        rows = [known[np.isin(t.values[known], usual)] for t, known in zip((fit, scored), rows, strict=True)]
        if len(np.unique(fit.values[rows[0]])) < 2 or len(rows[1]) < 2 * MIN_MINORITY:
            return None
    return rows[0], rows[1]


def code_sets(sample: Sample) -> list[np.ndarray]:
    """The codes that are read: each layer's alone, (n, d_l), bottom first, then all together, (n, Σd)."""
    return [*sample.layers, np.hstack(list(sample.layers))]


def mlp_probes(fitted: Sample, scored: Sample) -> list[MlpPredictions]:
    """What networks fitted on ``fitted`` answer for ``scored``, one of each of the ``code_sets``."""
    pairs = zip(code_sets(fitted), code_sets(scored), strict=True)
    return [mlp_predictions(fitted.targets, seen, held_out) for seen, held_out in pairs]


def probe(target: Target, fitted: Sample, scored: Sample, answers: Sequence[MlpPredictions]) -> dict[str, Any] | None:
    """Scores of one ``target`` of ``scored`` from each layer's code alone and from all together, by every reader.

    ``answers`` are what ``networks`` gives. Keys: the score's name (``auc``, ``r2`` or ``accuracy``) for boosted trees
    and the same with ``_linear`` and ``_mlp``: a list per layer; with ``_all`` appended: all layers;
    ``…_interval``: 95 % bootstrap; ``chance``; ``best_layer`` by trees and whether its interval lies clearly above
    chance (``best_layer_significant``); ``n`` scored and ``n_fit``. None where the target is too constant to score, or unknown
    in ``fitted``.
    """
    known = fitted.find(target.kind, target.name)
    rows = None if known is None else _rows(known, target)
    if known is None or rows is None:
        return None
    fit, score_on = rows
    name, score = SCORE_NAMES[target.kind], SCORES[target.kind]
    truth = target.values[score_on]
    pairs = [(a[fit], b[score_on]) for a, b in zip(code_sets(fitted), code_sets(scored), strict=True)]
    result: dict[str, Any] = {}
    for key, predicted in {
        name: [_predict(target.kind, False, (seen, known.values[fit]), asked) for seen, asked in pairs],
        f"{name}_linear": [_predict(target.kind, True, (seen, known.values[fit]), asked) for seen, asked in pairs],
        f"{name}_mlp": [each[target.kind, target.name][score_on] for each in answers],
    }.items():
        values = [float(score(truth, prediction)[0]) for prediction in predicted]
        intervals = [interval(score(truth, prediction, resamples(len(truth)))) for prediction in predicted]
        result |= {key: values[:-1], f"{key}_all": values[-1]}
        result |= {f"{key}_interval": intervals[:-1], f"{key}_all_interval": intervals[-1]}
    best = int(np.argmax(result[name]))
    by_chance = chance(target.kind, truth)
    clear = result[f"{name}_interval"][best][0] > by_chance + MARGIN
    return result | {
        "best_layer": best,
        "best_layer_significant": clear,
        "chance": by_chance,
        "n": len(score_on),
        "n_fit": len(fit),
    }


def _one_thread() -> None:
    """A reader of a few thousand samples is five times slower on many threads than on one."""
    threadpool_limits(1)


def probe_all(fitted: Sample, scored: Sample, advance: Callable[[int], None]) -> dict[str, dict[str, Any]]:
    """``attributes``, ``factors`` and ``labels``: {name: what ``probe`` gives}; several targets at a time."""
    tables: dict[str, dict[str, Any]] = {"attributes": {}, "factors": {}, "labels": {}}
    answers = mlp_probes(fitted, scored)
    with ThreadPoolExecutor(os.cpu_count(), initializer=_one_thread) as pool:
        results = pool.map(lambda target: probe(target, fitted, scored, answers), scored.targets)
        for target, result in zip(scored.targets, results, strict=True):
            advance(1)
            if result is not None:
                tables[f"{target.kind}s"][target.name] = result
    return tables
