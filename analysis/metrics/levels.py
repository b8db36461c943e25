"""Which layer holds which level of a face: light and color, hair and skin, identity and shape, pose and expression.

The paper's four levels (section 4), each as a group of factors and attributes. Two views of every group and layer:
how well probes predict the group from the code of the layer, and how much the group changes in decoded images when the
layer alone is replaced. A third figure, of everything that is known, stands beside the probes: how well a network
predicts the same from the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_LISTED = {
    "light and color": "brightness, contrast, light_direction, white_balance, background, background_warmth, "
    "background_hue",
    "hair and skin": "skin_tone, skin_warmth, hair_lightness, hair_warmth, hair_color, hair_length, Pale_Skin, "
    "Rosy_Cheeks, Bald, Bangs, Black_Hair, Blond_Hair, Brown_Hair, Gray_Hair, Receding_Hairline, Straight_Hair, "
    "Wavy_Hair",
    "identity and shape": "face_width, eye_distance, eye_size, nose, nose_width, lip_thickness, brow, male, "
    "masculinity, age, beard, glasses, 5_o_Clock_Shadow, Arched_Eyebrows, Bags_Under_Eyes, Big_Lips, Big_Nose, "
    "Bushy_Eyebrows, Chubby, Double_Chin, Eyeglasses, Goatee, Male, Mustache, Narrow_Eyes, No_Beard, Oval_Face, "
    "Pointy_Nose, Sideburns, Young",
    "pose and expression": "yaw, pitch, tilt, smile, mouth_open, open_mouth, eye_open, brow_raise, Smiling, "
    "Mouth_Slightly_Open, High_Cheekbones",
}
GROUPS = {group: tuple(names.split(", ")) for group, names in _LISTED.items()}
"""Names of factors (photographs, drawn faces) and attributes (CelebA); names in no group are left out, and listed."""
SCORES = {"factors": "r2", "attributes": "auc"}
PROBES = ("", "_linear")


def level_table(metrics: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Sums up the scores of the probes and the interventions by groups.

    Args:
        metrics: with ``factors`` and ``attributes`` of the probes, and ``interventions`` where there is a classifier.
        depth: number of layers.

    Returns:
        ``groups``, one entry for each with members: ``name``, ``members``; ``r2`` of its factors and ``auc`` of its
        attributes, for each layer the mean of the best probe's scores (R² below 0 counts as 0); ``change``, for each
        layer the mean of ``interventions``; each is None where no member has it; ``best_layer`` by ``r2``, else by
        ``auc``; ``most_changed_by``. ``left_out``: names in no group. {} where no group has members.
    """
    interventions = metrics.get("interventions") or {}
    groups = []
    for group, names in GROUPS.items():
        found = {key: [name for name in names if name in metrics.get(key, {})] for key in SCORES}
        means = {
            score: _mean(_best_probe(metrics[key][name], score, depth) for name in found[key])
            for key, score in SCORES.items()
        }
        changes = [interventions.get(key, {}).get(name) for key in SCORES for name in names]
        change = _mean(entry["change"] for entry in changes if entry is not None)
        if known := means["r2"] or means["auc"]:
            groups.append(
                {"name": group, "members": [name for name in names for key in SCORES if name in found[key]]}
                | means
                | {"change": change, "best_layer": int(np.argmax(known))}
                | {"most_changed_by": int(np.argmax(change)) if change else None}
            )
    listed = {name for names in GROUPS.values() for name in names}
    left_out = [name for key in SCORES for name in metrics.get(key, {}) if name not in listed]
    return {"groups": groups, "left_out": left_out} if groups else {}


def mean_scores(metrics: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Compares what probes read from codes with what the classifier reads from the pictures, over all names.

    Returns:
        For ``factors`` (R², below 0 counts as 0) and ``attributes`` (AUC), where both are scored: ``layers``, for each
        layer the mean of the best probe's scores; ``all_layers``, the same of all layers together; ``pictures``, the
        mean of the classifier's scores; ``n`` names. The classifier is small, so ``pictures`` estimates from below what
        can be read at all: codes may exceed it.
    """
    scores = (metrics.get("classifier") or {}).get("scores", {})
    found = {}
    for key, score in SCORES.items():
        rows, of_pictures = metrics.get(key, {}), scores.get(key.removesuffix("s"), {})
        both = [name for name in rows if name in of_pictures]
        layers = _mean(_best_probe(rows[name], score, depth) for name in both)
        if layers:
            together = [max(0.0, *(rows[name][f"{score}{probe}_all"] for probe in PROBES)) for name in both]
            pictures = [max(0.0, of_pictures[name][score]) for name in both]
            means = {"all_layers": float(np.mean(together)), "pictures": float(np.mean(pictures))}
            found[key] = {"layers": layers, **means, "n": len(both)}
    return found


def _best_probe(row: Mapping[str, Any], score: str, depth: int) -> list[float]:
    """For each layer the score of the best probe."""
    return [max(0.0, *(row[f"{score}{probe}"][layer] for probe in PROBES)) for layer in range(depth)]


def _mean(rows: Iterable[list[float]]) -> list[float] | None:
    """The mean of lists, element by element; None of no lists."""
    listed = list(rows)
    return [float(value) for value in np.mean(listed, axis=0)] if listed else None
