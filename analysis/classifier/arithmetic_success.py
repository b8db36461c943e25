"""Faces added and subtracted, measured: does the decoded a − b + c have what it should, in the classifier's eyes?

For a pair of attributes (s, t): a has s and t, b has s and not t, c has neither. The result should have t and not s,
and keep what c had otherwise. Three ways: a and b are single held-out images; the means of all such training images;
the means of those training images closest to c in all but t, because a code is curved where a ladder knows much, and
a difference holds where it was taken. c is held out in each. Success stands between two figures of the same classifier: the
*ceiling*, plain reconstructions of real faces with t and not s, and *chance*, the reconstruction of c itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.classifier.classifier import AttributeClassifier, Predictions
from analysis.figures.latent_arithmetic import FEWEST, PAIRS, attribute_direction, combine, equation, members
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, decode
from analysis.metrics.bootstrap import clustered_interval
from pipeline.model.latents import replace_layer

TRIPLES = 240  # of each pair; of rare kinds the same images in other company
NEAR = 10  # images that stand for a and b near c
UNRELATED = 0.15  # |correlation| among real images under which one attribute should survive a change of another
SEED = 0


def has(predictions: Predictions, column: int) -> np.ndarray:
    """Whether the classifier sees the attribute: (n,) bool."""
    return predictions.attributes[:, column].numpy() > 0.5


def unrelated(encoded: Encoded, columns: Sequence[int], to: Sequence[int]) -> list[int]:
    """Those of the attributes ``columns`` that hardly correlate with any of ``to`` among real images."""
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

    How far along the attribute's ``direction``, (1, d_l) a layer, does not count: the closest of those that have it
    would else be those that hardly have it.
    """
    known = _rows(codes, rows)
    unit = nn.functional.normalize(torch.cat(list(direction), 1))
    of_c, of_known = (code - code @ unit.T * unit for code in (torch.cat(list(c), 1), torch.cat(known, 1)))
    closest = torch.cdist(of_c, of_known).topk(min(NEAR, len(rows)), largest=False).indices
    return [z[closest].mean(1) for z in known]


def _drawn(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """``TRIPLES`` of ``rows``, none more than once oftener than another."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-TRIPLES // len(rows)))])[:TRIPLES]


def _share(right: np.ndarray, drawn: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """The mean of ``right`` (n,), and its interval: the widest over ``drawn``, the images (n,) that took each part.

    Where there are few images of a kind, each stands in many triples, and those are no independent samples.
    """
    intervals = [clustered_interval(right.astype(float), images) for images in drawn]
    return float(right.mean()), max(intervals, key=lambda ends: ends[1] - ends[0])


def measure_pair(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, pair: tuple[str, str]
) -> dict[str, Any] | None:
    """One entry of ``arithmetic.pairs``; None where its attributes are absent, too rare, or unknown to the classifier."""
    kinds, of_examples = (members(images, classifier.attribute_names, *pair) for images in (encoded, examples))
    if kinds is None or of_examples is None or not all(classifier.is_reliable("attribute", name) for name in pair):
        return None
    s, t = (classifier.attribute_names.index(name) for name in pair)
    notes = encoded.annotations.attributes
    rng = np.random.default_rng(SEED)
    drawn = [_drawn(rng, rows) for rows in kinds]
    a, b, c = (_rows(encoded.means, rows) for rows in drawn)
    result = combine(a, b, c)

    def classified(codes: Sequence[Tensor]) -> tuple[Predictions, np.ndarray]:
        predictions = classifier(decode(context, codes))
        return predictions, has(predictions, t) & ~has(predictions, s)

    plain, by_chance = classified(c)
    predictions, right = classified(result)
    mean_a, mean_b = (_mean(examples.means, rows) for rows in of_examples[:2])
    _, by_mean = classified(combine(mean_a, mean_b, c))
    direction = attribute_direction(examples, t)
    assert direction is not None, "there are FEWEST with and FEWEST without"
    near_a, near_b = (_near(examples.means, rows, c, direction) for rows in of_examples[:2])
    _, by_near = classified(combine(near_a, near_b, c))
    wanted = np.flatnonzero((notes[:, s] == 0) & (notes[:, t] == 1))[: 2 * TRIPLES]
    ceiling = classified(_rows(encoded.means, wanted))[1] if len(wanted) >= FEWEST else None
    others = unrelated(encoded, classifier.reliable_attributes(), [s, t])
    kept = np.stack([has(predictions, o) == has(plain, o) for o in others]).mean(0) if others else None
    per_layer = [classified(replace_layer(c, result, layer))[1] for layer in range(len(c))]
    entry: dict[str, Any] = {"s": pair[0], "t": pair[1], "equation": equation(*pair), "n": TRIPLES}
    for key, values, images in (
        ("success", right, drawn),
        ("success_mean_codes", by_mean, drawn[2:]),
        ("success_neighbors", by_near, drawn[2:]),
        ("chance", by_chance, drawn[2:]),
        ("reconstruction_ceiling", ceiling, [wanted]),
        ("unrelated_preserved", kept, drawn),
    ):
        entry[key], entry[f"{key}_interval"] = (None, None) if values is None else _share(values, images)
    entry["n_images"] = [len(np.unique(rows)) for rows in drawn]
    entry["n_ceiling"] = len(wanted)
    entry["success_per_layer"] = [float(values.mean()) for values in per_layer]
    entry["classifier_auc"] = {name: classifier.scores["attribute"][name]["auc"] for name in pair}
    return entry


def arithmetic_success(
    context: EvalContext, encoded: Encoded, examples: Encoded, classifier: AttributeClassifier, progress: Progress
) -> dict[str, Any]:
    """``pairs``, and over them the means of their successes, ceilings and chances.

    ``examples`` are images of the train split, whose mean codes may stand for a and b.
    ``not_classified`` lists the pairs whose attributes are absent, too rare, or unknown to the classifier.
    """
    advance = progress("arithmetic", len(PAIRS))
    entries = {}
    for pair in PAIRS:
        entries[pair] = measure_pair(context, encoded, examples, classifier, pair)
        advance(1)
    measured = [entry for entry in entries.values() if entry is not None]
    not_classified = [equation(*pair) for pair, entry in entries.items() if entry is None]
    result: dict[str, Any] = {"pairs": measured, "not_classified": not_classified}
    for key in ("success", "success_mean_codes", "success_neighbors", "reconstruction_ceiling", "chance"):
        values = [entry[key] for entry in measured if entry[key] is not None]
        result[key] = float(np.mean(values)) if values else None
    return result
