"""What linear probes find in each layer, in a form that travels with an exported model.

Letters in shapes: n images, d latent dimensions of a layer, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import Sample, Target
from analysis.probes.scores import MIN_MINORITY, SCORES, chance
from pipeline.model.pretrained_schema import LayerFindings, TargetFindings

CLEAR = 0.1  # above chance that a layer's score must be to be named
UNUSED = 0.02  # effect below which a layer is called unused
NAMED = 5  # targets in one sentence
RIDGE = 1e-2  # times the number of images
SCORE_WORDS = {"attribute": "AUC", "factor": "R²", "label": "accuracy"}


def linear_findings(fitted: Sample, scored: Sample) -> list[TargetFindings]:
    """Scores every target by a linear (ridge) probe of each layer.

    Args:
        fitted: Training images.
        scored: Held-out images.

    Returns:
        One entry for each target that varies in both. ``best_layer`` is set where the best layer leads the second by
        more than the 95 % bootstrap interval of their difference, and is at least CLEAR above chance.
    """
    found = []
    for target in scored.targets:
        known = fitted.find(target.kind, target.name)
        if known is None or not (_varies(known) and _varies(target)):
            continue
        on = np.flatnonzero(~np.isnan(target.values))
        truth = target.values[on]
        predictions = [
            _ridge(train, known, held_out)[on] for train, held_out in zip(fitted.layers, scored.layers, strict=True)
        ]
        score = SCORES[target.kind]
        scores = [float(score(truth, prediction)[0]) for prediction in predictions]
        by_chance = chance(target.kind, truth)
        found.append(
            TargetFindings(
                kind=target.kind,
                name=target.name,
                score=SCORE_WORDS[target.kind],  # pyright: ignore[reportArgumentType]
                scores=tuple(value if np.isfinite(value) else None for value in scores),
                chance=by_chance,
                best_layer=_leader(target, truth, predictions, scores, by_chance),
            )
        )
    return found


def _varies(target: Target) -> bool:
    values = target.values[~np.isnan(target.values)]
    if len(values) < 2 * MIN_MINORITY or np.ptp(values) == 0:
        return False
    return target.kind != "attribute" or min((values > 0.5).sum(), (values <= 0.5).sum()) >= MIN_MINORITY


def _ridge(codes: np.ndarray, target: Target, asked: np.ndarray) -> np.ndarray:
    """Predictions (m,) for ``asked`` (m, d): values, scores of an attribute, or labels."""
    on = np.flatnonzero(~np.isnan(target.values))
    x, y = codes[on].astype(float), target.values[on]
    center, scale = x.mean(0), x.std(0) + 1e-8
    x, m = (x - center) / scale, (asked.astype(float) - center) / scale
    classes = np.unique(y)
    answers = (y[:, None] == classes).astype(float) if target.kind == "label" else y[:, None]
    mean = answers.mean(0)
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (answers - mean))
    predicted = m @ weights + mean
    return classes[predicted.argmax(1)] if target.kind == "label" else predicted[:, 0]


def _leader(
    target: Target, truth: np.ndarray, predictions: Sequence[np.ndarray], scores: Sequence[float], by_chance: float
) -> int | None:
    order = np.argsort(scores)[::-1]
    best = int(order[0])
    if not scores[best] >= by_chance + CLEAR:
        return None
    if len(order) == 1:
        return best
    score, weights = SCORES[target.kind], resamples(len(truth))
    lead = score(truth, predictions[best], weights) - score(truth, predictions[int(order[1])], weights)
    return best if interval(lead)[0] > 0 else None


def layer_findings(
    effects: Sequence[float], targets: Sequence[TargetFindings], labels: Sequence[tuple[str, ...]]
) -> list[LayerFindings]:
    """Puts together what is known of each layer.

    Args:
        effects: Of each layer on the picture, bottom first.
        targets: Of ``linear_findings``.
        labels: Of each layer's directions.
    """
    return [
        LayerFindings(effect=effect, sentence=layer_sentence(layer, effect, targets), directions=names)
        for layer, (effect, names) in enumerate(zip(effects, labels, strict=True))
    ]


def layer_sentence(layer: int, effect: float, targets: Sequence[TargetFindings]) -> str:
    """Says in plain words what a layer holds. It is named only for targets in which it clearly leads all others."""
    if effect < UNUSED:
        return f"Layer {layer} is not used: drawing it from the prior hardly changes the picture."
    change = f"Drawing it from the prior changes the picture {effect:.2f} times as much as drawing all layers."
    led = [target for target in targets if target.best_layer == layer]
    led.sort(key=lambda target: target.chance - (target.scores[layer] or 0))
    if not led:
        return f"Layer {layer} shares what it holds with other layers: it leads in nothing that was measured. {change}"
    named: dict[str, str] = {}
    for target in led:  # an attribute and a factor may bear one name
        name = target.name.replace("_", " ").lower()
        named.setdefault(name, f"{name} ({target.score} {target.scores[layer]:.2f})")
    words = list(named.values())[:NAMED]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"Layer {layer} holds {listed} better than every other layer. {change}"
