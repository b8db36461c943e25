"""Identity: do codes tell people apart, and which layer holds who is shown? (the third level of the paper's section 4)

Two measures. With identity labels (CelebA's list): verification, "do two images show the same person?", by the distance
of codes, on people whom the model was not trained on. With identity descriptors (numbers of a face recognition
network): how well probes predict their principal components.

Shape letters: n images, P people, R resamples, D numbers of a descriptor.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.inputs.context import EvalContextError
from analysis.metrics.bootstrap import interval, resamples
from analysis.probes.dataset import Target
from analysis.probes.predictors import linear_predictions, mlp_predictions
from analysis.probes.scores import auc, average, by_layer, r_squared

MIN_PEOPLE = 8  # with two images each, or an interval means nothing
MIN_IMAGES = 16
MAX_PAIRS = 20_000  # of each kind
COMPONENTS = 16
SEED = 0


@dataclass(frozen=True)
class IdentityCodes:
    """Identity descriptors of images, by the names of their files without suffix."""

    row_of: Mapping[str, int]
    codes: np.ndarray  # (n, D) float

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """The row of each key (the file name without suffix, folders ignored), −1 where it has no descriptor."""
        return np.array([self.row_of.get(_stem(key), -1) for key in keys], int)


def read_identity_codes(path: Path) -> IdentityCodes:
    """Reads an npz file with ``name``, (n,) file names of images, and ``code``, (n, D) numbers.

    Raises:
        EvalContextError: the file cannot be read, or does not hold these two arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile) or not {"name", "code"} <= set(arrays.files):
                raise EvalContextError(
                    f"{path} has no arrays 'name' and 'code': --identity-codes takes such an npz file"
                )
            names, codes = arrays["name"], arrays["code"]
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise EvalContextError(f"cannot read {path} as an npz file with 'name' and 'code' ({error})") from None
    if codes.ndim != 2 or names.shape != codes.shape[:1] or not np.issubdtype(codes.dtype, np.number):
        raise EvalContextError(
            f"{path}: 'name' {names.shape} and 'code' {codes.shape} do not match; needed: (n,) names, (n, D) numbers"
        )
    if not np.isfinite(codes).all():
        raise EvalContextError(f"{path}: 'code' holds numbers that are not finite")
    return IdentityCodes({_stem(str(name)): row for row, name in enumerate(names)}, codes)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].split(".", 1)[0]


def whitened(codes: np.ndarray) -> np.ndarray:
    """Codes (n, d) with mean 0 and covariance I; dimensions without variance become 0."""
    centered = codes - codes.mean(0)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(codes))
    scale = np.where(values > 1e-8 * max(values.max(), 1e-12), 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    return centered @ vectors * scale


def equal_error_rate(same: np.ndarray, distance: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The error rate at the distance where as many equal pairs are refused as unequal ones are accepted.

    Args:
        same: (n,) bool, whether both images of a pair show one person.
        distance: (n,) of each pair.
        weights: (R, n) of the pairs; None for one set of ones.

    Returns:
        (R,), between 0 (perfect) and 0.5 (chance).
    """
    weights = np.ones((1, len(same))) if weights is None else weights
    order = np.argsort(distance, kind="stable")
    ordered, equal = weights.T[order].astype(float), same[order, None]
    accepted = [np.cumsum(ordered * kind, axis=0) for kind in (equal, ~equal)]
    with np.errstate(invalid="ignore", divide="ignore"):
        refused, wrong = 1 - accepted[0] / accepted[0][-1], accepted[1] / accepted[1][-1]
    crossing = np.abs(refused - wrong).argmin(0)
    return ((refused + wrong) / 2)[crossing, np.arange(weights.shape[0])]


def _pairs(person: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (m, 2) of images of one person, and as many of two people; ``person`` (n,) runs from 0."""
    order = np.argsort(person, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(person[order])) + 1)
    same = np.concatenate([group[np.stack(np.triu_indices(len(group), 1), 1)] for group in groups])
    if len(same) > MAX_PAIRS:
        same = same[rng.choice(len(same), MAX_PAIRS, replace=False)]
    different = rng.integers(0, len(person), (2 * len(same) + 100, 2))
    different = different[person[different[:, 0]] != person[different[:, 1]]]
    return same, different[: len(same)]


def verification(layers: Sequence[np.ndarray], identity: np.ndarray, trained_on: np.ndarray) -> dict[str, Any]:
    """Measures how well the distance of whitened codes tells whether two images show one person.

    Args:
        layers: codes (n, d_l) of held-out images, bottom first.
        identity: (n,) int64, −1 where unknown.
        trained_on: identities of the training images; these people are left out.

    Returns:
        ``verification`` with ``auc`` and ``equal_error_rate`` for each layer, the same with ``_all`` for all layers
        together, their ``…_interval`` over people, ``n_people``, ``n_images`` and ``n_pairs`` of each kind; {} where
        fewer than MIN_PEOPLE new people have two images.
    """
    new = (identity >= 0) & ~np.isin(identity, trained_on)
    people, counts = np.unique(identity[new], return_counts=True)
    chosen = np.flatnonzero(new & np.isin(identity, people[counts >= 2]))
    names, person = np.unique(identity[chosen], return_inverse=True)
    if len(names) < MIN_PEOPLE:
        return {}
    same, different = _pairs(person, np.random.default_rng(SEED))
    pairs = np.concatenate([same, different])
    equal = np.arange(len(pairs)) < len(same)
    drawn = resamples(len(names))
    weights = drawn[:, person[pairs[:, 0]]] * np.where(equal, 1, drawn[:, person[pairs[:, 1]]])
    white = [whitened(codes[chosen].astype(float)) for codes in layers]
    white.append(np.hstack(white))
    distances = [np.linalg.norm(codes[pairs[:, 0]] - codes[pairs[:, 1]], axis=1) for codes in white]
    areas = [auc(equal.astype(float), -distance) for distance in distances]
    rates = [float(equal_error_rate(equal, distance)[0]) for distance in distances]
    rate_ends = [interval(equal_error_rate(equal, distance, weights)) for distance in distances]
    area_ends = [area.interval(person[pairs[:, 0]]) for area in areas]
    result = by_layer("auc", [area.value for area in areas], area_ends)
    result |= by_layer("equal_error_rate", rates, rate_ends)
    sizes = {"n_people": len(names), "n_images": len(chosen), "n_pairs": [len(same), len(different)]}
    return {"verification": result | sizes}


def descriptor_scores(
    fitted: tuple[Sequence[np.ndarray], Sequence[str]],
    scored: tuple[Sequence[np.ndarray], Sequence[str]],
    identity_codes: IdentityCodes,
) -> dict[str, Any]:
    """Measures how well probes predict the first COMPONENTS principal components of identity descriptors.

    Args:
        fitted: codes (n, d_l) of training images, bottom first, and the images' keys.
        scored: the same of held-out images.
        identity_codes: descriptors by file name.

    Returns:
        ``descriptors`` with ``r2_mlp`` and ``r2_linear``, the mean R² over components: a list per layer, and with
        ``_all`` from all layers, each with its ``…_interval``; ``explained``, the share of the descriptors' variance in
        these components; ``n`` scored and ``n_fit``; {} where too few images have a descriptor.
    """
    rows = [identity_codes.rows(keys) for _, keys in (fitted, scored)]
    kept = [np.flatnonzero(numbers >= 0) for numbers in rows]
    if min(map(len, kept)) < MIN_IMAGES:
        return {}
    seen, asked = (identity_codes.codes[numbers[i]].astype(float) for numbers, i in zip(rows, kept, strict=True))
    center = seen.mean(0)
    _, spread, axes = np.linalg.svd(seen - center, full_matrices=False)
    axes = axes[:COMPONENTS]
    values, truth = (seen - center) @ axes.T, (asked - center) @ axes.T
    sets = [[z[i] for z in layers] for (layers, _), i in zip((fitted, scored), kept, strict=True)]
    x, y = ([*layers, np.hstack(layers)] for layers in sets)
    targets = [Target("factor", str(k), values[:, k]) for k in range(len(axes))]
    linear = [linear_predictions(targets, *pair) for pair in zip(x, y, strict=True)]
    result: dict[str, Any] = {}
    for key, predictions in (("r2_mlp", mlp_predictions(targets, x, y)), ("r2_linear", linear)):
        scores = [
            average([r_squared(t, found[target.kind, target.name]) for target, t in zip(targets, truth.T, strict=True)])
            for found in predictions
        ]
        result |= by_layer(key, [score.value for score in scores], [score.interval() for score in scores])
    explained = float((spread[:COMPONENTS] ** 2).sum() / (spread**2).sum())
    sizes = {"components": len(axes), "explained": explained, "n": len(kept[1]), "n_fit": len(kept[0])}
    return {"descriptors": result | sizes}
