"""What each layer changes: the causal counterpart of what it knows.

One layer's code of held-out images is drawn anew from the prior, the others are held, the picture is decoded and the
classifier reads it. A layer that knows a thing and the layer that controls it may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.classifier.classifier import AttributeClassifier, Predictions
from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode
from analysis.metrics.bootstrap import ratio_interval
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import replace_layer, split_layers

SAMPLES = 384
NOISE_SEED = 4
LEAST = 0.02  # mean change of a probability under which there is nothing to share out


def _readings(classifier: AttributeClassifier, predictions: Predictions) -> Iterator[tuple[str, str, Tensor]]:
    """(kind, name, (n, k) values) of all that the classifier knows; factors in units of their standard deviation."""
    for column, name in enumerate(classifier.attribute_names):
        if classifier.is_reliable("attribute", name):
            yield "attributes", name, predictions.attributes[:, [column]]
    for column, name in enumerate(classifier.factor_names):
        if classifier.is_reliable("factor", name):
            yield "factors", name, predictions.factors[:, [column]] / classifier.factor_std[column]
    if len(classifier.classes) and classifier.is_reliable("label", "label"):
        yield "labels", "label", predictions.labels / 2  # half the L1 distance of two distributions


def _changes(
    classifier: AttributeClassifier, before: Predictions, after: Predictions
) -> dict[tuple[str, str], np.ndarray]:
    """|change| of each reading, image by image: {(kind, name): (n,)}."""
    pairs = zip(_readings(classifier, before), _readings(classifier, after), strict=True)
    return {(kind, name): (b - a).abs().sum(1).numpy().astype(float) for (kind, name, a), (_, _, b) in pairs}


def layer_intervention_effects(
    context: EvalContext, encoded: Encoded, classifier: AttributeClassifier
) -> dict[str, Any]:
    """``attributes``, ``factors`` and ``labels``, each {name: entry}, as the classifier reads them.

    An entry: ``change``, for each layer the mean |change| of the reading (a probability; a factor in standard
    deviations) when that layer alone is drawn anew, over the mean |change| when all are, ``change_all``; its
    ``change_interval``, ``best_layer`` and ``n``. Readings that hardly change even then are left out.
    """
    count = min(len(encoded), SAMPLES)
    codes = [z[:count] for z in encoded.means]
    drawn = split_layers(normal(torch.arange(count), sum(context.sizes), Stream.PRIOR, NOISE_SEED), context.sizes)
    before = classifier(decode(context, codes))
    together = _changes(classifier, before, classifier(decode(context, drawn)))
    alone = [
        _changes(classifier, before, classifier(decode(context, replace_layer(codes, drawn, layer))))
        for layer in range(len(context.sizes))
    ]
    tables: dict[str, Any] = {"attributes": {}, "factors": {}, "labels": {}}
    for (kind, name), everything in together.items():
        if everything.mean() < LEAST:
            continue
        parts = [changes[kind, name] for changes in alone]
        change = [float(part.mean() / everything.mean()) for part in parts]
        tables[kind][name] = {
            "change": change,
            "change_interval": [ratio_interval(part, everything) for part in parts],
            "change_all": float(everything.mean()),
            "best_layer": int(np.argmax(change)),
            "n": count,
        }
    return tables
