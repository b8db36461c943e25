"""Faces added and subtracted, measured: does the decoded a − b + c show what it should?

For a pair of attributes (s, t): a has s and t, b has s and not t, c has neither. The result should show t and not s,
and otherwise look like c. Five ways, with c held out in each:

- a and b are single held-out images (`success`);
- the same, with what is known of t from training images (`success_calibrated`): only the layers that change t are
  moved, each result has the norm of c's code, and the step along t's direction is at least the calibrated one;
- the means of all training images of a's and b's kind (`success_mean_codes`);
- the means of those training images that are closest to c in everything but t (`success_neighbors`);
- the direction of t, the mean of all training images with it minus those without, at the calibrated step
  (`success_direction`).

Success lies between two figures of the same classifier: the ceiling, reconstructions of real faces with t and not s,
and chance, the reconstruction of c itself. benchmarks/arithmetic.py compares more ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.classifier.classifier import AttributeClassifier, Predictions
from analysis.figures.latent_arithmetic import (
    FEWEST,
    PAIRS,
    attribute_direction,
    combine,
    equation,
    keep_norm,
    members,
)
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode
from analysis.metrics.bootstrap import clustered_interval
from pipeline.model.latents import replace_layer

TRIPLES = 160  # of each pair; images of rare kinds are in several triples
NEAR = 10  # images near c whose mean is a or b
UNRELATED = 0.15  # |correlation| among real images under which one attribute should survive a change of another
WAYS = ("", "_calibrated", "_mean_codes", "_neighbors", "_direction")
STEPS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)  # times the length of the direction
CALIBRATION_TARGET = 0.9  # share of training images without the attribute that should show it after the step
CALIBRATION_IMAGES = 48
KNOWING_SHARE = 0.5  # of the best layer's effect on the attribute that a layer needs to be moved
SEED = 0


def has(predictions: Predictions, column: int) -> np.ndarray:
    """Whether the classifier predicts the attribute: (n,) bool."""
    return predictions.attributes[:, column].numpy() > 0.5


@dataclass(frozen=True)
class Calibration:
    """How an attribute is added to a face, chosen on training images without it."""

    direction: list[Tensor]  # (1, d_l) a layer: mean code with the attribute minus mean code without
    step: float
    """Times the direction, on all layers: the shortest of STEPS that reaches CALIBRATION_TARGET, else the best."""
    layers: list[int]
    """Layers that change the attribute, each alone, by at least KNOWING_SHARE of what the best layer does."""


def calibrate(
    context: EvalContext, examples: Encoded, classifier: AttributeClassifier, column: int
) -> Calibration | None:
    """Chooses step and layers for the attribute ``column``; None where it is rare or universal."""
    direction = attribute_direction(examples, column)
    if direction is None:
        return None
    absent = np.flatnonzero(examples.annotations.attributes[:, column] == 0)[:CALIBRATION_IMAGES]
    start = _rows(examples.means, absent)

    def predicted(codes: Sequence[Tensor]) -> np.ndarray:
        return classifier(decode(context, codes)).attributes[:, column].numpy()

    best_rate, step = -1.0, 1.0
    for candidate in STEPS:
        rate = float((predicted([z + candidate * d for z, d in zip(start, direction, strict=True)]) > 0.5).mean())
        if rate > best_rate:
            best_rate, step = rate, candidate
        if rate >= CALIBRATION_TARGET:
            break
    before, moved = predicted(start), [z + step * d for z, d in zip(start, direction, strict=True)]
    gains = [float((predicted(replace_layer(start, moved, layer)) - before).mean()) for layer in range(len(start))]
    return Calibration(direction, step, [i for i, gain in enumerate(gains) if gain >= KNOWING_SHARE * max(gains)])


def calibrated_sum(
    a: Sequence[Tensor], b: Sequence[Tensor], c: Sequence[Tensor], calibration: Calibration
) -> list[Tensor]:
    """a − b + c on the calibrated layers with c's norm, moved at least the calibrated step along the direction."""
    plain = combine(a, b, c)
    kept = [plain[layer] if layer in calibration.layers else z for layer, z in enumerate(c)]
    length = torch.cat(calibration.direction, 1).norm().clamp(min=1e-9)
    unit = [d / length for d in calibration.direction]
    along = torch.stack([((x - y) * u).sum(1) for x, y, u in zip(a, b, unit, strict=True)]).sum(0)[:, None]
    missing = (calibration.step * length - along).clamp(min=0)
    return [z + missing * u for z, u in zip(keep_norm(kept, c), unit, strict=True)]


def unrelated(encoded: Encoded, columns: Sequence[int], to: Sequence[int]) -> list[int]:
    """The attributes of ``columns`` that hardly correlate with any of ``to`` among real images."""
    values = encoded.annotations.attributes
    known = (values[:, [*columns, *to]] >= 0).all(1)

    def correlation(one: int, two: int) -> float:
        x, y = values[known, one].astype(float), values[known, two].astype(float)
        return 0.0 if not (x.std() and y.std()) else float(abs(np.corrcoef(x, y)[0, 1]))

    return [c for c in columns if c not in to and all(correlation(c, other) < UNRELATED for other in to)]


def _rows(codes: Sequence[Tensor], rows: np.ndarray) -> list[Tensor]:
    return [z[torch.from_numpy(rows)] for z in codes]


def _mean(codes: Sequence[Tensor], rows: np.ndarray) -> list[Tensor]:
    return [z.mean(0, keepdim=True) for z in _rows(codes, rows)]


def _near(codes: Sequence[Tensor], rows: np.ndarray, c: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    """Mean codes of those ``NEAR`` of ``rows`` that are closest to each c in the code of all layers.

    Distance along the attribute's ``direction``, (1, d_l) a layer, does not count. Otherwise the closest images with
    the attribute would be those that hardly show it.
    """
    known = _rows(codes, rows)
    unit = nn.functional.normalize(torch.cat(list(direction), 1))
    of_c, of_known = (code - code @ unit.T * unit for code in (torch.cat(list(c), 1), torch.cat(known, 1)))
    closest = torch.cdist(of_c, of_known).topk(min(NEAR, len(rows)), largest=False).indices
    return [z[closest].mean(1) for z in known]


def _drawn(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """``TRIPLES`` of ``rows``, each as often as every other, up to one."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-TRIPLES // len(rows)))])[:TRIPLES]


def _share(right: np.ndarray, drawn: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """The mean of ``right`` (n,), and its interval: the widest over ``drawn``, the images (n,) that took each part.

    Where there are few images of a kind, each is in many triples, which are then not independent.
    """
    intervals = [clustered_interval(right.astype(float), images) for images in drawn]
    return float(right.mean()), max(intervals, key=lambda ends: ends[1] - ends[0])


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
    kinds, of_examples = (members(images, classifier.attribute_names, *pair) for images in (encoded, examples))
    if kinds is None or of_examples is None or not all(classifier.is_reliable("attribute", name) for name in pair):
        return None
    s, t = (classifier.attribute_names.index(name) for name in pair)
    calibration = calibrate(context, examples, classifier, t)
    assert calibration is not None, "there are FEWEST images with t and FEWEST without"
    rng = np.random.default_rng(SEED)
    drawn = [_drawn(rng, indices) for indices in kinds]
    a, b, c = (_rows(encoded.means, indices) for indices in drawn)
    others = unrelated(encoded, classifier.reliable_attributes(), [s, t])
    plain = classifier(decode(context, c))
    entry: dict[str, Any] = {"s": pair[0], "t": pair[1], "equation": equation(*pair), "n": TRIPLES}

    def add(key: str, values: np.ndarray | None, images: Sequence[np.ndarray]) -> None:
        entry[key], entry[f"{key}_interval"] = (None, None) if values is None else _share(values, images)

    def measure(codes: Sequence[Tensor], way: str, images: Sequence[np.ndarray]) -> None:
        predictions = classifier(decode(context, codes))
        add(f"success{way}", has(predictions, t) & ~has(predictions, s), images)
        kept = np.stack([has(predictions, o) == has(plain, o) for o in others]).mean(0) if others else None
        add(f"unrelated_preserved{way}", kept, images)

    result = combine(a, b, c)
    mean_a, mean_b = (_mean(examples.means, indices) for indices in of_examples[:2])
    near_a, near_b = (_near(examples.means, indices, c, calibration.direction) for indices in of_examples[:2])
    measure(result, "", drawn)
    measure(calibrated_sum(a, b, c, calibration), "_calibrated", drawn)
    measure(combine(mean_a, mean_b, c), "_mean_codes", drawn[2:])
    measure(combine(near_a, near_b, c), "_neighbors", drawn[2:])
    moved = [z + calibration.step * d for z, d in zip(c, calibration.direction, strict=True)]
    measure(moved, "_direction", drawn[2:])
    add("chance", has(plain, t) & ~has(plain, s), drawn[2:])
    notes = encoded.annotations.attributes
    wanted = np.flatnonzero((notes[:, s] == 0) & (notes[:, t] == 1))[: 2 * TRIPLES]
    real = classifier(decode(context, _rows(encoded.means, wanted))) if len(wanted) >= FEWEST else None
    add("reconstruction_ceiling", None if real is None else has(real, t) & ~has(real, s), [wanted])
    alone = [classifier(decode(context, replace_layer(c, result, layer))) for layer in range(len(c))]
    return entry | {
        "success_per_layer": [float((has(one, t) & ~has(one, s)).mean()) for one in alone],
        "step": calibration.step,
        "layers": calibration.layers,
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
        examples: training images, on which directions, steps and layers are chosen.
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
