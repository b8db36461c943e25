"""Adding and removing an attribute, measured: the change of the target against the change of all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analysis.classifier.arithmetic_success import unrelated
from analysis.classifier.classifier import AttributeClassifier
from analysis.figures.latent_arithmetic import attribute_direction
from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode
from analysis.metrics.bootstrap import mean_interval
from pipeline.model.latents import replace_layer

SAMPLES = 64
SEED = 0


def edit_success(context: EvalContext, encoded: Encoded, classifier: AttributeClassifier) -> dict[str, dict[str, Any]]:
    """{attribute: entry} of those that the classifier knows and that are neither rare nor universal.

    The attribute's direction (mean code with it minus mean code without) is added to held-out images without it and
    taken from those with it. ``target``: mean change of the judged probability towards what was wanted (1 = always
    from surely absent to surely present); ``others``: mean |change| of the judged probability of the attributes
    that are unrelated to it among real images; ``target_per_layer``: only that layer is moved; ``…_interval``; ``n``.
    """
    result: dict[str, dict[str, Any]] = {}
    known = classifier.reliable_attributes()
    for column in known:
        direction = attribute_direction(encoded, column)
        if direction is None:
            continue
        value = encoded.annotations.attributes[:, column]
        rows = np.random.default_rng(SEED).permutation(np.flatnonzero(value >= 0))[:SAMPLES]
        plain = classifier(decode(context, [z[rows] for z in encoded.means])).attributes
        sign = torch.from_numpy(1.0 - 2.0 * (value[rows] == 1)).float()[:, None]

        start = [z[rows] for z in encoded.means]
        moved = [z + sign * d for z, d in zip(start, direction, strict=True)]
        change = classifier(decode(context, moved)).attributes - plain
        alone = [
            classifier(decode(context, replace_layer(start, moved, i))).attributes - plain for i in range(len(moved))
        ]
        toward = (change[:, column] * sign[:, 0]).numpy().astype(float)
        others = unrelated(encoded, known, [column])
        result[classifier.attribute_names[column]] = {
            "target": float(toward.mean()),
            "target_interval": mean_interval(toward),
            "others": float(change[:, others].abs().mean()) if others else None,
            "target_per_layer": [float((one[:, column] * sign[:, 0]).mean()) for one in alone],
            "n": len(rows),
        }
    return result
