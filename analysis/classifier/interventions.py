"""What each layer changes in the picture: the causal counterpart of the probes.

The code of one layer is replaced by a sample from the prior, all others are kept, and the decoded image is classified.
The layer that holds information about a factor may differ from the layer that changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.classifier.classifier import AttributeClassifier
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode_to_measure
from analysis.probes.multitask import Predictions
from analysis.probes.scores import ratio
from pipeline.data.counter_rng import Stream, normal
from pipeline.model.latents import replace_layer, split_layers

SAMPLES = 256
NOISE_SEED = 4
MIN_CHANGE = 0.02  # mean change of a probability when all layers are replaced; below it a share means nothing


def _reliable_values(classifier: AttributeClassifier, predictions: Predictions) -> dict[tuple[str, str], Tensor]:
    """{(table, name): (n, k)} of all reliable predictions; factors in units of their standard deviation."""
    outputs, found = classifier.outputs, {}
    for column, name in enumerate(outputs.attributes):
        if classifier.is_reliable("attribute", name):
            found["attributes", name] = predictions.attributes[:, [column]]
    for column, name in enumerate(outputs.factors):
        if classifier.is_reliable("factor", name):
            found["factors", name] = predictions.factors[:, [column]] / outputs.scale[column]
    if classifier.is_reliable("label", "label"):
        found["labels", "label"] = predictions.labels / 2  # half the L1 distance of two distributions
    return found


def layer_intervention_effects(
    context: EvalContext, encoded: Encoded, classifier: AttributeClassifier, progress: Progress
) -> dict[str, Any]:
    """Measures how much each layer alone changes the classifier's predictions for held-out images.

    Returns:
        ``attributes``, ``factors`` and ``labels``, each {name: entry}. An entry has ``change``, for each layer the mean
        |change| of the prediction (a probability; a factor in standard deviations) when that layer alone is replaced by
        a sample from the prior, over ``change_all``, the mean |change| when all layers are; ``change_interval``;
        ``best_layer``; ``n``. Predictions that hardly change even then are left out.
    """
    depth = len(context.sizes)
    advance = progress("interventions on each layer", depth + 1)
    count = min(len(encoded), SAMPLES)
    codes = [z[:count] for z in encoded.means]
    drawn = split_layers(normal(torch.arange(count), sum(context.sizes), Stream.PRIOR, NOISE_SEED), context.sizes)

    def values(decoded: Sequence[Tensor]) -> dict[tuple[str, str], Tensor]:
        return _reliable_values(classifier, classifier(decode_to_measure(context, decoded)))

    before = values(codes)

    def changes(replaced: Sequence[Tensor]) -> dict[tuple[str, str], np.ndarray]:
        """|change| of each prediction for each image, (n,)."""
        after = values(replaced)
        advance(1)
        return {key: (after[key] - value).abs().sum(1).numpy().astype(float) for key, value in before.items()}

    together = changes(drawn)
    alone = [changes(replace_layer(codes, drawn, layer)) for layer in range(depth)]
    tables: dict[str, Any] = {"attributes": {}, "factors": {}, "labels": {}}
    for (kind, name), everything in together.items():
        if everything.mean() < MIN_CHANGE:
            continue
        shares = [ratio(change[kind, name], everything) for change in alone]
        tables[kind][name] = {
            "change": [share.value for share in shares],
            "change_interval": [share.interval() for share in shares],
            "change_all": float(everything.mean()),
            "best_layer": int(np.argmax([share.value for share in shares])),
            "n": count,
        }
    return tables
