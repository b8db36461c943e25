"""Adding and removing an attribute, measured: the change of the attribute against the change of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.classifier.arithmetic_success import unrelated
from analysis.classifier.classifier import AttributeClassifier
from analysis.figures.latent_arithmetic import attribute_direction
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode_to_measure
from analysis.probes.scores import mean
from pipeline.model.latents import replace_layer

SAMPLES = 64
LAYER_SAMPLES = 32  # of these, for each layer alone
SEED = 0


def edit_success(
    context: EvalContext, encoded: Encoded, classifier: AttributeClassifier, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Adds the direction of each attribute to held-out images without it, and subtracts it from images with it.

    Returns:
        {attribute: entry} for attributes that the classifier predicts reliably and that are neither rare nor universal.
        ``target``: mean change of the attribute's probability in the wanted direction, at most 1; ``others``: mean
        |change| of the probability of attributes that are unrelated to it among real images; ``target_per_layer``:
        only that layer is moved; ``target_interval``; ``n``.
    """

    def attributes_of(codes: Sequence[Tensor]) -> Tensor:
        return classifier(decode_to_measure(context, codes)).attributes

    result: dict[str, dict[str, Any]] = {}
    reliable = classifier.reliable_attributes()
    advance = progress("edits of attributes", len(reliable))
    for column in reliable:
        advance(1)
        direction = attribute_direction(encoded, column)
        if direction is None:
            continue
        value = encoded.annotations.attributes[:, column]
        indices = np.random.default_rng(SEED).permutation(np.flatnonzero(value >= 0))[:SAMPLES]
        start = [z[indices] for z in encoded.means]
        plain = attributes_of(start)
        sign = torch.from_numpy(1.0 - 2.0 * (value[indices] == 1)).float()[:, None]
        moved = [z + sign * d for z, d in zip(start, direction, strict=True)]
        change = attributes_of(moved) - plain
        few, changed = ([z[:LAYER_SAMPLES] for z in codes] for codes in (start, moved))
        alone = [attributes_of(replace_layer(few, changed, layer))[:, column] for layer in range(len(moved))]
        before, toward = plain[:LAYER_SAMPLES, column], sign[:LAYER_SAMPLES, 0]
        target = mean((change[:, column] * sign[:, 0]).numpy().astype(float))
        others = unrelated(encoded, reliable, [column])
        result[classifier.outputs.attributes[column]] = {
            **target.entry("target"),
            "others": float(change[:, others].abs().mean()) if others else None,
            "target_per_layer": [float(((after - before) * toward).mean()) for after in alone],
            "n": len(indices),
        }
    return result
