"""Probes: how well the code of each layer alone predicts attributes, factors and labels of held-out images.

A linear probe shows what is easy to read from a code, an MLP what information the code holds. Both are fitted on codes
of training images and scored on held-out images, which neither the model nor a probe has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import TRAIN_IMAGES, Encoded, encoded_split, held_out, split_size
from analysis.model.names import match_attribute
from analysis.probes.dataset import Sample, Target, probe_sample
from analysis.probes.multitask import ByTarget
from analysis.probes.predictors import linear_predictions, mlp_predictions
from analysis.probes.scores import MIN_MINORITY, SCORE_NAMES, SCORES, by_layer, chance, varies

MARGIN = 0.02  # above chance that an interval must stay: the best of several layers exceeds it by luck alone
Tables = dict[str, dict[str, Any]]


def code_sets(sample: Sample) -> list[np.ndarray]:
    """The inputs of the probes: the codes of each layer, (n, d_l), bottom first, then of all together, (n, Σd)."""
    return [*sample.layers, np.hstack(list(sample.layers))]


def _scored_images(fitted: Target, scored: Target) -> np.ndarray | None:
    """Indices of the images to score on; None where the target varies too little in either sample."""
    seen = fitted.values[~np.isnan(fitted.values)]
    known = ~np.isnan(scored.values)
    if scored.kind == "label":  # rare labels cannot be learned
        names, counts = np.unique(seen, return_counts=True)
        known &= np.isin(scored.values, names[counts >= MIN_MINORITY])
    indices = np.flatnonzero(known)
    return indices if varies(fitted.kind, seen) and varies(scored.kind, scored.values[indices]) else None


def probe(fitted: Target, scored: Target, predictions: dict[str, Sequence[ByTarget]]) -> dict[str, Any] | None:
    """Scores one target from the code of each layer and from all together, by every probe.

    Args:
        fitted: the target on the images that the probes were fitted on.
        scored: the same on the images that they are scored on.
        predictions: of each probe for the scored images, from each of the ``code_sets``, by the suffix of its scores.
            The first probe chooses ``best_layer``.

    Returns:
        For each probe ``by_layer`` of the score (``auc``, ``r2`` or ``accuracy``) with the suffix; ``chance``;
        ``best_layer``, and ``best_layer_significant``: its interval lies clearly above chance; ``n`` scored and
        ``n_fit``. None where the target varies too little to be scored.
    """
    indices = _scored_images(fitted, scored)
    if indices is None:
        return None
    truth, by_chance = scored.values[indices], chance(scored.kind, scored.values[indices])
    result: dict[str, Any] = {}
    for suffix, sets in predictions.items():
        found = [SCORES[scored.kind](truth, each[scored.kind, scored.name][indices]) for each in sets]
        values, intervals = [each.value for each in found], [each.interval() for each in found]
        result |= by_layer(SCORE_NAMES[scored.kind] + suffix, values, intervals)
        if "best_layer" not in result:
            best = int(np.argmax(values[:-1]))
            result |= {"best_layer": best, "best_layer_significant": intervals[best][0] > by_chance + MARGIN}
    return result | {"chance": by_chance, "n": len(indices), "n_fit": int((~np.isnan(fitted.values)).sum())}


def probe_all(fitted: Sample, scored: Sample, progress: Progress, linear_only: bool = False) -> Tables:
    """Fits probes on some images and scores every target of others.

    Args:
        fitted: the images that probes are fitted on.
        scored: the images that they are scored on.
        progress: told what is being done.
        linear_only: fit no MLPs.

    Returns:
        ``attributes``, ``factors`` and ``labels``, each {name: what ``probe`` gives}. MLPs have no suffix, linear
        probes ``_linear``.
    """
    tables: Tables = {"attributes": {}, "factors": {}, "labels": {}}
    targets = [(known, target) for target in scored.targets if (known := fitted.find(target.kind, target.name))]
    if not targets:
        return tables
    seen, asked = code_sets(fitted), code_sets(scored)
    predictions: dict[str, Sequence[ByTarget]] = {}
    if not linear_only:
        predictions[""] = mlp_predictions(fitted.targets, seen, asked, progress)
    advance = progress("linear probes and scores", len(seen) + len(targets))
    predictions["_linear"] = linear = []
    for pair in zip(seen, asked, strict=True):
        linear.append(linear_predictions(fitted.targets, *pair))
        advance(1)
    for known, target in targets:
        result = probe(known, target, predictions)
        if result is not None:
            tables[f"{target.kind}s"][target.name] = result
        advance(1)
    return tables


def probe_context(
    context: EvalContext, samples: int, progress: Progress, names: Sequence[str] = (), linear_only: bool = False
) -> Tables:
    """Fits probes on training images and scores them on held-out ones: what ``probe_all`` returns.

    Shards without a train split: fits on one half of the held-out images and scores on the other.

    Args:
        context: the model and its shards.
        samples: at most this many images on each side.
        progress: told what is being done.
        names: attributes, factors or labels to probe, in any case; none = all.
        linear_only: fit no MLPs.

    Raises:
        EvalContextError: there are too few held-out images.
        ShardError: a shard is damaged.
        UsageError: there is nothing of a name; the message gives the nearest.
    """
    manifest = context.shards.manifest
    known = [*manifest.attribute_names, *manifest.factor_names, "label"]
    wanted = {match_attribute(name, known) for name in names}

    def sample(encoded: Encoded) -> Sample:
        found = probe_sample(context, encoded)
        return replace(found, targets=[target for target in found.targets if not wanted or target.name in wanted])

    scored = sample(held_out(context, samples, progress))
    if not split_size(context.shards, "train"):
        return probe_all(*scored.halves(), progress, linear_only)
    fitted = sample(encoded_split(context, "train", min(TRAIN_IMAGES, samples), progress))
    return probe_all(fitted, scored, progress, linear_only)
