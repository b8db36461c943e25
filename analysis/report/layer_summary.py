"""What each layer holds, in plain words, from the probes' scores: for the report, the model card and the explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.figures.charts import TABLES, ScoreTable, as_table
from analysis.figures.tiles import short_label

WELL_ABOVE_CHANCE = {"attributes": 0.4, "factors": 0.25, "labels": 0.3}
"""Share of the way from chance to 1 that a score must reach: an AUC of 0.7, an R² of 0.25."""
UNUSED = 0.02  # effect below which a layer counts as unused
NAMED = 4  # targets in one sentence
LABELS, LABEL = 2, 24  # names beside a picture, and the characters of each


class Finding(NamedTuple):
    """One attribute, factor or label that the codes hold, and the layer that holds it."""

    name: str
    """In plain words."""
    skill: float
    """Share of the way from chance to 1 that the best layer reaches."""
    best_layer: int
    """The layer with the best score, though perhaps by a hair."""
    layer: int | None
    """The layer that clearly leads all others; None = shared."""


def plain_name(name: str) -> str:
    """'Mouth_Slightly_Open' as 'mouth slightly open'."""
    return name.replace("_", " ").lower()


def findings(metrics: Mapping[str, Any]) -> list[Finding]:
    """Lists what some layer knows well above chance, the best known first; names that differ only in case, once."""
    found: list[Finding] = []
    for table in TABLES:
        for name, row in as_table(metrics, table.key).items():
            scores = [-1.0 if score is None else score for score in row[table.score]]
            skill = (max(scores) - row["chance"]) / max(1e-9, 1 - row["chance"])
            if skill >= WELL_ABOVE_CHANCE[table.key]:
                best = scores.index(max(scores))
                found.append(Finding(plain_name(name), skill, best, clear_leader(table, row)))
    best_first: dict[str, Finding] = {}
    for finding in sorted(found, key=lambda finding: -finding.skill):
        best_first.setdefault(finding.name, finding)
    return list(best_first.values())


def clear_leader(table: ScoreTable, row: Mapping[str, Any]) -> int | None:
    """The layer that is above chance and of which the 95 % interval lies above those of all others; None = shared."""
    intervals, best = row[f"{table.score}_interval"], row["best_layer"]
    low = intervals[best][0]
    others = [ends[1] for layer, ends in enumerate(intervals) if layer != best and ends[1] is not None]
    leads = row["best_layer_significant"] and low is not None and all(low > high for high in others)
    return best if leads else None


def layer_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Says for each layer, bottom first, what it holds; each sentence follows the words "Layer l".

    A layer is named only for what it clearly leads in (``clear_leader``); the rest is shared. Without any annotation
    only its effect can be told.

    Args:
        metrics: ``layers`` with the ``effect`` of each, and the tables of ``analysis.probes.probe.probe_all``.
    """
    known = findings(metrics)
    annotated = any(as_table(metrics, table.key) for table in TABLES)
    effects = [entry["effect"] for entry in metrics["layers"]]
    return [_sentence(layer, effects, known, annotated) for layer in range(len(effects))]


def _sentence(layer: int, effects: Sequence[float | None], known: Sequence[Finding], annotated: bool) -> str:
    effect = effects[layer]
    if effect is None:
        return "could not be measured."
    if effect < UNUSED:
        return "is unused: a change of this layer hardly changes the picture."
    own = [finding.name for finding in known if finding.layer == layer]
    shared = [finding.name for finding in known if finding.layer is None and finding.best_layer == layer]
    if len(effects) == 1:
        return f"holds {_listed(own)}." if own else "is the only one: it holds the whole picture."
    if own:
        words = f"holds {_listed(own)} better than every other layer."
    elif shared:
        words = f"holds {_listed(shared)}, which other layers hold about as well."
    elif annotated:
        words = "holds nothing better than the other layers do."
    else:
        words = "cannot be named: the images have no annotations that vary enough."
    return f"{words} Effect on the picture: {100 * effect:.0f} %."


def _listed(names: Sequence[str], most: int = NAMED) -> str:
    """Joins the first names with commas and 'and', and counts the others."""
    words = list(names[:most]) + ([f"{len(names) - most} more"] if len(names) > most else [])
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def shared_sentence(metrics: Mapping[str, Any]) -> str | None:
    """Names what several layers hold about equally well; None where there is nothing."""
    shared = [finding.name for finding in findings(metrics) if finding.layer is None]
    return f"Shared between layers: {_listed(shared, 2 * NAMED)}." if shared else None


def layer_labels(metrics: Mapping[str, Any]) -> list[str]:
    """A short label for each layer, such as 'layer 2:\\nyaw,\\nsmile', for figures."""
    known = findings(metrics)
    labels = []
    for layer in range(len(metrics["layers"])):
        own = [short_label(finding.name, LABEL) for finding in known if finding.layer == layer][:LABELS]
        labels.append(f"layer {layer}" + (":\n" + ",\n".join(own) if own else ""))
    return labels


def headline(metrics: Mapping[str, Any]) -> list[str]:
    """The figures that a person asks for first, a line each, for the terminal."""
    train, valid = metrics["reconstruction"]["train"], metrics["reconstruction"]["valid"]
    lines = [
        f"reconstruction of {valid['n']:,} held-out images: L1 {number(valid['l1'], 4)} of [0, 1], "
        f"PSNR {number(valid['psnr'], 1)} dB, SSIM {number(valid['ssim'])} (train: L1 {number(train['l1'], 4)})",
        "effect of each layer, bottom first: " + ", ".join(number(layer["effect"], 2) for layer in metrics["layers"]),
    ]
    lines += [f"layer {layer} {sentence}" for layer, sentence in enumerate(layer_sentences(metrics))]
    if shared := shared_sentence(metrics):
        lines.append(shared)
    success = metrics.get("arithmetic") or {}
    if success.get("success") is not None:
        lines.append(
            f"arithmetic a − b + c: success {success['success']:.2f} (ceiling "
            f"{number(success['reconstruction_ceiling'], 2)}, chance {number(success['chance'], 2)}) over "
            f"{len(success['pairs'])} pairs of attributes, by the classifier"
        )
    return lines


def number(value: float | None, digits: int = 3) -> str:
    """A figure with that many decimals; a dash where it is unknown."""
    return "–" if value is None else f"{value:.{digits}f}"
