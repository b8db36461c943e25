"""Faces added and subtracted, measured: does the decoded a − b + c show what it should?

For a pair of attributes (s, t): a has s and t, b has s and not t, c has neither. The result should show t and not s,
and otherwise look like c. Three ways, with c held out in each:

- a and b are single held-out images, added as `analysis.model.arithmetic` does with the direction of t (`success`);
- the bare a − b + c of the same images (`success_plain`);
- the direction of t added to c at the calibrated step (`success_direction`).

Directions and steps are chosen on training images. Success lies between two figures of the same classifier: the
ceiling, reconstructions of real faces with t and not s, and chance, the reconstruction of c itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from analysis.classifier.classifier import AttributeClassifier
from analysis.figures.latent_arithmetic import FEWEST, PAIRS, attribute_direction, equation, members
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode_codes
from analysis.model.arithmetic import add_codes, combine, holding_layers
from analysis.probes.multitask import Predictions
from analysis.probes.scores import mean
from pipeline.model.latents import replace_layer

TRIPLES = 160  # of each pair; images of rare kinds are in several triples
UNRELATED = 0.15  # |correlation| among real images under which one attribute should survive a change of another
WAYS = ("", "_plain", "_direction")
STEPS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)  # times the length of the direction
CALIBRATION_TARGET = 0.9  # share of training images without the attribute that should show it after the step
CALIBRATION_IMAGES = 48
SEED = 0


def has(predictions: Predictions, column: int) -> np.ndarray:
    """Whether the classifier predicts the attribute: (n,) bool."""
    return predictions.attributes[:, column].numpy() > 0.5


def calibrated_step(
    context: EvalContext,
    examples: Encoded,
    classifier: AttributeClassifier,
    column: int,
    direction: Sequence[Tensor],
) -> float:
    """The shortest of STEPS that reaches CALIBRATION_TARGET on training images without the attribute, else the best."""
    absent = np.flatnonzero(examples.annotations.attributes[:, column] == 0)[:CALIBRATION_IMAGES]
    start = [z[absent] for z in examples.means]
    rates = []
    for step in STEPS:
        moved = [z + step * d for z, d in zip(start, direction, strict=True)]
        rates.append(has(classifier(decode_codes(context.vlae, moved)), column).mean())
        if rates[-1] >= CALIBRATION_TARGET:
            return step
    return STEPS[int(np.argmax(rates))]


def unrelated(encoded: Encoded, columns: Sequence[int], to: Sequence[int]) -> list[int]:
    """The attributes of ``columns`` that hardly correlate with any of ``to`` among real images."""
    values = encoded.annotations.attributes
    known = (values[:, [*columns, *to]] >= 0).all(1)

    def correlation(one: int, two: int) -> float:
        x, y = values[known, one].astype(float), values[known, two].astype(float)
        return 0.0 if not (x.std() and y.std()) else float(abs(np.corrcoef(x, y)[0, 1]))

    return [c for c in columns if c not in to and all(correlation(c, other) < UNRELATED for other in to)]


def _drawn(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """``TRIPLES`` of ``rows``, each as often as every other, up to one."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-TRIPLES // len(rows)))])[:TRIPLES]


def _share(right: np.ndarray, drawn: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """The mean of ``right`` (n,), and its interval: the widest over ``drawn``, the images (n,) that took each part.

    Where there are few images of a kind, each is in many triples, which are then not independent.
    """
    estimate = mean(right.astype(float), (0.0, 1.0))
    return estimate.value, max(map(estimate.interval, drawn), key=lambda ends: ends[1] - ends[0])


def measure_pair(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, pair: tuple[str, str]
) -> dict[str, Any] | None:
    """One entry of ``arithmetic.pairs``; None where an attribute is absent, too rare, or not classified reliably.

    Args:
        context: the model.
        encoded: held-out images.
        examples: training images.
        classifier: of the same shards.
        pair: the attributes s and t.
    """
    names = classifier.outputs.attributes
    kinds = members(encoded, names, *pair)
    if kinds is None or not all(classifier.is_reliable("attribute", name) for name in pair):
        return None
    s, t = (names.index(name) for name in pair)
    direction = attribute_direction(examples, t)
    if direction is None:
        return None
    step = calibrated_step(context, examples, classifier, t, direction)
    rng = np.random.default_rng(SEED)
    drawn = [_drawn(rng, indices) for indices in kinds]
    a, b, c = ([z[indices] for z in encoded.means] for indices in drawn)
    others = unrelated(encoded, classifier.reliable_attributes(), [s, t])
    entry: dict[str, Any] = {"s": pair[0], "t": pair[1], "equation": equation(*pair), "n": TRIPLES}

    def decoded(codes: Sequence[Tensor]) -> Predictions:
        return classifier(decode_codes(context.vlae, codes))

    def right(predictions: Predictions) -> np.ndarray:
        return has(predictions, t) & ~has(predictions, s)

    def add(key: str, values: np.ndarray | None, images: Sequence[np.ndarray]) -> None:
        entry[key], entry[f"{key}_interval"] = (None, None) if values is None else _share(values, images)

    plain = decoded(c)
    result = add_codes(a, b, c, [direction], step)
    moved = [z + step * d for z, d in zip(c, direction, strict=True)]
    for way, codes, images in zip(WAYS, (result, combine(a, b, c), moved), (drawn, drawn, drawn[2:]), strict=True):
        predictions = decoded(codes)
        add(f"success{way}", right(predictions), images)
        kept = np.stack([has(predictions, o) == has(plain, o) for o in others]).mean(0) if others else None
        add(f"unrelated_preserved{way}", kept, images)
    add("chance", right(plain), drawn[2:])
    notes = encoded.annotations.attributes
    wanted = np.flatnonzero((notes[:, s] == 0) & (notes[:, t] == 1))[: 2 * TRIPLES]
    real = right(decoded([z[wanted] for z in encoded.means])) if len(wanted) >= FEWEST else None
    add("reconstruction_ceiling", real, [wanted])
    few, moved = ([z[: TRIPLES // 2] for z in codes] for codes in (c, result))
    return entry | {
        "success_per_layer": [
            float(right(decoded(replace_layer(few, moved, layer))).mean()) for layer in range(len(c))
        ],
        "step": step,
        "layers": holding_layers(direction),
        "n_images": [len(np.unique(indices)) for indices in drawn],
        "n_ceiling": len(wanted),
        "classifier_auc": {name: classifier.scores["attribute"][name]["auc"] for name in pair},
    }


def arithmetic_success(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, progress: Progress
) -> dict[str, Any]:
    """Measures all PAIRS.

    Args:
        context: the model.
        encoded: held-out images.
        examples: training images, on which directions and steps are chosen.
        classifier: of the same shards.
        progress: told what is being done.

    Returns:
        ``pairs``; the means over them of each success, of ``reconstruction_ceiling`` and of ``chance``; and
        ``not_classified``, the pairs whose attributes are absent, too rare, or not classified reliably.
    """
    advance = progress("arithmetic", len(PAIRS))
    entries = {}
    for pair in PAIRS:
        entries[pair] = measure_pair(context, encoded, examples, classifier, pair)
        advance(1)
    measured = [entry for entry in entries.values() if entry is not None]
    not_classified = [equation(*pair) for pair, entry in entries.items() if entry is None]
    result: dict[str, Any] = {"pairs": measured, "not_classified": not_classified}
    for key in (*(f"success{way}" for way in WAYS), "reconstruction_ceiling", "chance"):
        values = [entry[key] for entry in measured if entry[key] is not None]
        result[key] = float(np.mean(values)) if values else None
    return result
