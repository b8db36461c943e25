"""What each layer holds, in plain words, from the probes' scores in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures.charts import TABLES, ScoreTable, as_table

WELL_ABOVE_CHANCE = {"attributes": 0.4, "factors": 0.25, "labels": 0.3}
"""Share of the way from chance to 1 that a score must reach: an AUC of 0.7, an R² of 0.25."""
UNUSED = 0.02  # effect below which a layer counts as unused
NAMED = 4  # targets in one sentence


@dataclass(frozen=True)
class Finding:
    """One attribute, factor or label that the codes hold, and the layer that holds it."""

    name: str
    unit: str
    """AUC, R² or accuracy."""
    scores: tuple[float, ...]
    """Of each layer alone, bottom first."""
    skill: float
    """Share of the way from chance to 1 that the best layer reaches."""
    best_layer: int
    """The layer with the best score, though perhaps by a hair."""
    layer: int | None
    """The layer that clearly leads all others; None = shared."""


def plain_name(name: str) -> str:
    """'Mouth_Slightly_Open' as 'mouth slightly open'."""
    return name.replace("_", " ").lower()


def listed(words: Sequence[str]) -> str:
    """Joins words with commas and 'and'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def findings(metrics: Mapping[str, Any]) -> list[Finding]:
    """Lists what some layer knows well above chance, the best known first; names that differ only in case, once.

    A target belongs to a layer where the 95 % interval of that layer's score lies above the interval of every other
    layer. Otherwise it is shared.
    """
    found: dict[str, Finding] = {}
    for table in TABLES:
        for name, row in as_table(metrics, table.key).items():
            finding = _finding(table, name, row)
            known = found.get(plain_name(name))
            if finding and (known is None or finding.skill > known.skill):
                found[plain_name(name)] = finding
    return sorted(found.values(), key=lambda finding: -finding.skill)


def _finding(table: ScoreTable, name: str, row: Mapping[str, Any]) -> Finding | None:
    scores = [-1.0 if score is None else score for score in row[table.score]]
    best = max(range(len(scores)), key=scores.__getitem__)
    skill = (scores[best] - row["chance"]) / max(1e-9, 1 - row["chance"])
    if skill < WELL_ABOVE_CHANCE[table.key]:
        return None
    return Finding(name, table.unit, tuple(scores), skill, best, clear_leader(row, table.score))


def clear_leader(row: Mapping[str, Any], score: str) -> int | None:
    """The layer of which the 95 % interval lies above the interval of every other layer; None where they overlap."""
    intervals = row[f"{score}_interval"]
    best = row["best_layer"]
    low = intervals[best][0]
    others = [ends[1] for layer, ends in enumerate(intervals) if layer != best and ends[1] is not None]
    return best if low is not None and all(low > high for high in others) else None


def layer_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Says for each layer, bottom first, what it holds. Without any annotation only its effect can be told."""
    known = findings(metrics)
    annotated = any(as_table(metrics, table.key) for table in TABLES)
    return [_sentence(layer, entry["effect"], known, annotated) for layer, entry in enumerate(metrics["layers"])]


def _sentence(layer: int, effect: float | None, known: Sequence[Finding], annotated: bool) -> str:
    if effect is None:
        return "could not be measured."
    if effect < UNUSED:
        return f"is unused: a change of this layer hardly changes the picture (effect {effect:.2f})."
    own = [finding for finding in known if finding.layer == layer]
    change = f"Its effect on the picture is {effect:.2f}."
    if own:
        words = [f"{plain_name(f.name)} ({f.unit} {f.scores[layer]:.2f})" for f in own[:NAMED]]
        more = f", and {len(own) - NAMED} more" if len(own) > NAMED else ""
        return f"holds {listed(words)}{more} better than every other layer. {change}"
    if not annotated:
        return f"cannot be named: the images have no annotations. {change}"
    if shared := [f"{plain_name(f.name)} ({f.unit} {f.scores[layer]:.2f})" for f in known if f.best_layer == layer]:
        return f"holds {listed(shared[:NAMED])}, which other layers hold about as well. {change}"
    return f"holds nothing better than the other layers do. {change}"


def shared_sentence(metrics: Mapping[str, Any]) -> str | None:
    """Names what several layers hold about equally well; None where there is nothing."""
    shared = [plain_name(finding.name) for finding in findings(metrics) if finding.layer is None]
    if not shared:
        return None
    more = f", and {len(shared) - 2 * NAMED} more" if len(shared) > 2 * NAMED else ""
    return f"Shared between layers: {listed(shared[: 2 * NAMED])}{more}."


def layer_labels(metrics: Mapping[str, Any], most: int = 2) -> list[str]:
    """A short label for each layer, such as 'layer 2: yaw, smile', for figures."""
    known = findings(metrics)
    labels = []
    for layer in range(len(metrics["layers"])):
        own = [plain_name(finding.name) for finding in known if finding.layer == layer][:most]
        labels.append(f"layer {layer}" + (":\n" + ",\n".join(own) if own else ""))
    return labels


def headline(metrics: Mapping[str, Any]) -> list[str]:
    """The figures that a person asks for first, a line each, for the terminal."""
    train, valid = metrics["reconstruction"]["train"], metrics["reconstruction"]["valid"]
    lines = [
        f"reconstruction of {valid['n']} held-out images: L1 {_figure(valid['l1'], 4)} of [0, 1], "
        f"PSNR {_figure(valid['psnr'], 1)} dB, SSIM {_figure(valid['ssim'], 3)} (train: L1 {_figure(train['l1'], 4)})",
        "effect of each layer, bottom first: " + ", ".join(_figure(layer["effect"], 2) for layer in metrics["layers"]),
    ]
    lines += [f"layer {layer} {sentence}" for layer, sentence in enumerate(layer_sentences(metrics))]
    if shared := shared_sentence(metrics):
        lines.append(shared)
    success = metrics.get("arithmetic") or {}
    if success.get("success") is not None:
        lines.append(
            f"arithmetic a − b + c: success {success['success']:.2f} (ceiling "
            f"{_figure(success['reconstruction_ceiling'], 2)}, chance {_figure(success['chance'], 2)}) over "
            f"{len(success['pairs'])} pairs of attributes, by the classifier"
        )
    return lines


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
