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
from analysis.inputs.encode import Encoded, decode_to_measure
from analysis.model.arithmetic import Codes, add_codes, combine, holding_layers
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
    context: EvalContext, examples: Encoded, classifier: AttributeClassifier, column: int, direction: Codes
) -> float:
    """The shortest of STEPS that reaches CALIBRATION_TARGET on training images without the attribute, else the best."""
    absent = np.flatnonzero(examples.annotations.attributes[:, column] == 0)[:CALIBRATION_IMAGES]
    start = [z[absent] for z in examples.means]
    rates = []
    for step in STEPS:
        moved = classifier(decode_to_measure(context, _moved(start, direction, step)))
        rates.append(has(moved, column).mean())
        if rates[-1] >= CALIBRATION_TARGET:
            return step
    return STEPS[int(np.argmax(rates))]


def _moved(codes: Sequence[Tensor], direction: Codes, step: float) -> Codes:
    return [z + step * d for z, d in zip(codes, direction, strict=True)]


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


def _share(key: str, right: np.ndarray | None, drawn: Sequence[np.ndarray]) -> dict[str, Any]:
    """The mean of ``right`` (n,), and its interval: the widest over ``drawn``, the images (n,) that took each part.

    Where there are few images of a kind, each is in many triples, which are then not independent.
    """
    if right is None:
        return {key: None, f"{key}_interval": None}
    estimate = mean(right.astype(float), (0.0, 1.0))
    ends = max(map(estimate.interval, drawn), key=lambda ends: ends[1] - ends[0])
    return {key: estimate.value, f"{key}_interval": ends}


def measure_pair(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, pair: tuple[str, str]
) -> dict[str, Any] | None:
    """One entry of ``arithmetic.pairs``; None where an attribute is absent, too rare, or not classified reliably.

    Args:
        context: the model.
        encoded: held-out images.
        examples: training images, on which the direction and the step are chosen.
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
        return classifier(decode_to_measure(context, codes))

    def right(predictions: Predictions) -> np.ndarray:
        return has(predictions, t) & ~has(predictions, s)

    plain = decoded(c)
    result = add_codes(a, b, c, [direction], step)
    ways = (result, combine(a, b, c), _moved(c, direction, step))
    for way, codes, images in zip(WAYS, ways, (drawn, drawn, drawn[2:]), strict=True):
        predictions = decoded(codes)
        kept = np.stack([has(predictions, o) == has(plain, o) for o in others]).mean(0) if others else None
        entry |= _share(f"success{way}", right(predictions), images) | _share(f"unrelated_preserved{way}", kept, images)
    notes = encoded.annotations.attributes
    wanted = np.flatnonzero((notes[:, s] == 0) & (notes[:, t] == 1))[: 2 * TRIPLES]
    real = right(decoded([z[wanted] for z in encoded.means])) if len(wanted) >= FEWEST else None
    few, moved = ([z[: TRIPLES // 2] for z in codes] for codes in (c, result))
    alone = [right(decoded(replace_layer(few, moved, layer))).mean() for layer in range(len(c))]
    return (
        entry
        | _share("chance", right(plain), drawn[2:])
        | _share("reconstruction_ceiling", real, [wanted])
        | {
            "success_per_layer": [float(share) for share in alone],
            "step": step,
            "layers": holding_layers(direction),
            "n_images": [len(np.unique(indices)) for indices in drawn],
            "n_ceiling": len(wanted),
            "classifier_auc": {name: classifier.scores["attribute"][name]["auc"] for name in pair},
        }
    )


def arithmetic_success(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, progress: Progress
) -> dict[str, Any]:
    """Measures all PAIRS on held-out images; directions and steps are chosen on training images, ``examples``.

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
