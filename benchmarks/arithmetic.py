"""Compares ways to add and subtract attributes in latent space, on held-out photographs.

    python -m benchmarks.arithmetic CKPT [--triples 120]

Every way is measured on the same triples: a has s and t, b has s and not t, c has neither. The result should show t and
not s (success, as a share of the ceiling: reconstructions of real images with t and not s), and keep c's other
attributes (preserved). Directions, layers and step lengths are chosen on training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from analysis.classifier.arithmetic_success import calibrate, calibrated_sum, unrelated
from analysis.classifier.classifier import AttributeClassifier
from analysis.figures.latent_arithmetic import combine, keep_norm, members
from analysis.inputs.context import EvalContext, open_context
from analysis.inputs.encode import Encoded, EncodedSplits, decode, encode_splits
from analysis.metrics.summary import fit_classifier
from pipeline.model.pixels import from_array

PAIRS = (("Male", "Smiling"), ("Male", "Mouth_Slightly_Open"), ("Male", "Pale_Skin"))
STEPS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
TARGET = 0.9  # share of training images that should show the attribute after a calibrated step
CALIBRATION_IMAGES = 64
MATCHED = 1500  # images of each kind among which matches are looked for
KNOWING_SHARE = 0.5  # of the best layer's effect on the attribute that a layer needs to be moved
WITH_RESIDUAL = ("single, as the report", "means of all, calibrated")
SEED = 0

Codes = list[Tensor]


def mean_direction(train: Encoded, column: int) -> Codes:
    """Mean code with the attribute minus mean code without it."""
    values = train.annotations.attributes[:, column]
    return [z[values == 1].mean(0, keepdim=True) - z[values == 0].mean(0, keepdim=True) for z in train.means]


def logistic_direction(train: Encoded, column: int) -> Codes:
    """The normal of a logistic regression on all layers, as long as the means lie apart along it."""
    values = train.annotations.attributes[:, column]
    known = values >= 0
    codes = torch.cat(train.means, 1)
    center, scale = codes.mean(0), codes.std(0).clamp(min=1e-6)
    x = ((codes - center) / scale).numpy()
    normal = (
        torch.from_numpy(LogisticRegression(max_iter=500, C=0.1).fit(x[known], values[known]).coef_).float() / scale
    )
    apart = torch.cat(mean_direction(train, column), 1)
    direction = normal * ((apart * normal).sum() / normal.square().sum())
    return list(direction.split([z.shape[1] for z in train.means], 1))


def matched_direction(train: Encoded, column: int) -> Codes:
    """The mean difference between images with the attribute and their nearest image without it.

    Only images that agree in all other attributes are matched.
    """
    attributes = train.annotations.attributes
    rng = np.random.default_rng(SEED)
    kinds = [rng.permutation(np.flatnonzero(attributes[:, column] == value))[:MATCHED] for value in (1, 0)]
    others = torch.from_numpy(np.delete(attributes, column, 1).astype(np.float32))
    codes = torch.cat(train.means, 1)
    distance = torch.cdist(codes[kinds[0]], codes[kinds[1]])
    differing = torch.cdist(others[kinds[0]], others[kinds[1]], p=1)
    closest = (distance + 1e3 * differing).argmin(1)
    return [(z[kinds[0]] - z[kinds[1]][closest]).mean(0, keepdim=True) for z in train.means]


def moved(c: Codes, direction: Codes, step: float) -> Codes:
    """C moved along a direction."""
    return [code + step * d for code, d in zip(c, direction, strict=True)]


class Classified:
    """Decodes and classifies."""

    def __init__(self, context: EvalContext, classifier: AttributeClassifier) -> None:
        self.context, self.classifier = context, classifier

    def __call__(self, codes: Codes, residual: Tensor | None = None) -> np.ndarray:
        """Probabilities (n, A) for decoded codes, with ``residual`` images added."""
        images = decode(self.context, codes)
        if residual is not None:
            images = (images + residual).clamp(-1, 1)
        return self.classifier(images).attributes.numpy()


def without_attribute(train: Encoded, column: int) -> Codes:
    """Codes of some training images without the attribute."""
    absent = np.flatnonzero(train.annotations.attributes[:, column] == 0)[:CALIBRATION_IMAGES]
    return [z[absent] for z in train.means]


def calibrated_step(classify: Classified, train: Encoded, direction: Codes, column: int) -> float:
    """The shortest step that shows the attribute on TARGET of training images without it; else the best of STEPS."""
    start = without_attribute(train, column)
    rates = [(classify(moved(start, direction, step))[:, column] > 0.5).mean() for step in STEPS]
    enough = [step for step, rate in zip(STEPS, rates, strict=True) if rate >= TARGET]
    return enough[0] if enough else STEPS[int(np.argmax(rates))]


def knowing_layers(classify: Classified, train: Encoded, direction: Codes, column: int) -> list[int]:
    """Layers that change the attribute's probability, alone, by KNOWING_SHARE of what the best layer does."""
    start = without_attribute(train, column)
    base = classify(start)[:, column]
    gains = []
    for layer in range(len(direction)):
        alone = [d if i == layer else torch.zeros_like(d) for i, d in enumerate(direction)]
        gains.append(float((classify(moved(start, alone, 1.5))[:, column] - base).mean()))
    return [layer for layer, gain in enumerate(gains) if gain >= KNOWING_SHARE * max(gains)]


def attribute_projection(train: Encoded) -> list[Tensor]:
    """For each layer the projection (d, d) on the span of all attributes' mean directions."""
    columns = range(train.annotations.attributes.shape[1])
    directions = [mean_direction(train, column) for column in columns]
    projections = []
    for layer in range(len(train.means)):
        basis = torch.cat([d[layer] for d in directions]).T
        u, s, _ = torch.linalg.svd(basis, full_matrices=False)
        u = u[:, s > 0.05 * s[0]]
        projections.append(u @ u.T)
    return projections


def variants(
    classify: Classified, train: Encoded, kinds: Sequence[np.ndarray], column: int, triple: tuple[Codes, Codes, Codes]
) -> Iterator[tuple[str, Codes]]:
    """(name, codes) of each way to compute the result for triples of codes a, b, c."""
    a, b, c = triple
    plain = combine(a, b, c)
    yield "single images: a − b + c", plain
    yield "single, norm of c", keep_norm(plain, c)
    direction = mean_direction(train, column)
    layers = knowing_layers(classify, train, direction, column)
    chosen = [z if i in layers else code for i, (z, code) in enumerate(zip(plain, c, strict=True))]
    yield f"single, knowing layers {layers}", chosen
    yield "single, knowing layers, norm of c", keep_norm(chosen, c)
    projected = [(x - y) @ p for x, y, p in zip(a, b, attribute_projection(train), strict=True)]
    yield "single, projected on attributes", moved(c, projected, 1.0)
    yield "single, projected, twice", moved(c, projected, 2.0)
    yield "single, projected, twice, norm of c", keep_norm(moved(c, projected, 2.0), c)
    unit = [d / torch.cat(direction, 1).norm() for d in direction]
    along = sum(((x - y) * u).sum(1, keepdim=True) for x, y, u in zip(a, b, unit, strict=True))
    step = calibrated_step(classify, train, direction, column)
    least = step * torch.cat(direction, 1).norm()
    lifted = [z + (least - along).clamp(min=0) * u for z, u in zip(keep_norm(plain, c), unit, strict=True)]
    yield "single, norm of c, lifted to the calibrated step along t", lifted
    lifted = [z + (least - along).clamp(min=0) * u for z, u in zip(moved(c, projected, 1.0), unit, strict=True)]
    yield "single, projected, lifted to the calibrated step along t", lifted
    calibration = calibrate(classify.context, train, classify.classifier, column)
    if calibration is not None:
        yield "single, as the report: calibrated_sum", calibrated_sum(a, b, c, calibration)
    group = [(z[kinds[0]].mean(0, keepdim=True) - z[kinds[1]].mean(0, keepdim=True)) for z in train.means]
    ways: tuple[tuple[str, Callable[[Encoded, int], Codes]], ...] = (
        ("logistic regression", logistic_direction),
        ("matched pairs", matched_direction),
        ("means of all", mean_direction),
    )
    yield "groups: mean(a) − mean(b) + c", moved(c, group, 1.0)
    for name, way in ways:
        found = way(train, column)
        step = calibrated_step(classify, train, found, column)
        yield f"{name}, step 1", moved(c, found, 1.0)
        yield f"{name}, calibrated step {step:g}", moved(c, found, step)
    step = calibrated_step(classify, train, group, column)
    yield f"groups, calibrated step {step:g}", moved(c, group, step)
    yield "groups, calibrated, norm of c", keep_norm(moved(c, group, step), c)
    only = [d if i in layers else torch.zeros_like(d) for i, d in enumerate(group)]
    step = calibrated_step(classify, train, only, column)
    yield f"groups, knowing layers, calibrated step {step:g}", moved(c, only, step)


def compare(context: EvalContext, splits: EncodedSplits, classifier: AttributeClassifier, triples: int) -> None:
    """Prints success over the ceiling and the share of unrelated attributes preserved, for every way and pair."""
    classify = Classified(context, classifier)
    train, encoded, names = splits.train, splits.held_out, classifier.attribute_names
    table: dict[str, list[tuple[float, float]]] = {}
    for s, t in PAIRS:
        kinds, examples = members(encoded, names, s, t), members(train, names, s, t)
        if kinds is None or examples is None or not all(classifier.is_reliable("attribute", n) for n in (s, t)):
            print(f"{s}, {t}: left out, too rare or not reliable")
            continue
        columns = names.index(s), names.index(t)
        rng = np.random.default_rng(SEED)
        drawn = [rng.choice(kind, triples) for kind in kinds]
        a, b, c = ([z[indices] for z in encoded.means] for indices in drawn)
        notes = encoded.annotations.attributes
        wanted = np.flatnonzero((notes[:, columns[0]] == 0) & (notes[:, columns[1]] == 1))[:triples]
        real = classify([z[wanted] for z in encoded.means])
        ceiling = float(((real[:, columns[1]] > 0.5) & (real[:, columns[0]] <= 0.5)).mean())
        others = unrelated(encoded, classifier.reliable_attributes(), columns)
        before = classify(c)
        residual = from_array(encoded.images[drawn[2]]) - decode(context, c)
        for name, codes in variants(classify, train, examples, columns[1], (a, b, c)):
            key = name.split(" [")[0].split(" step ")[0] if "calibrated" in name or " [" in name else name
            for suffix, added in (("", None), (", c's residual added", residual)):
                if added is not None and not name.startswith(WITH_RESIDUAL):
                    continue
                after = classify(codes, added)
                success = float(((after[:, columns[1]] > 0.5) & (after[:, columns[0]] <= 0.5)).mean()) / ceiling
                preserved = float(((after[:, others] > 0.5) == (before[:, others] > 0.5)).mean()) if others else np.nan
                table.setdefault(key + suffix, []).append((success, preserved))
                print(
                    f"{t:20s} {name + suffix:72s} success/ceiling {success:.2f}  preserved {preserved:.2f}", flush=True
                )
    print("\nmean over pairs")
    for key, values in table.items():
        success, preserved = np.mean(values, 0)
        print(f"{key:76s} success/ceiling {success:.2f}  preserved {preserved:.2f}")


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A ckpt.pt trained on photographs with attributes.")],
    data: Annotated[Path | None, typer.Option(help="Folder of shards; default: the one trained on.")] = None,
    triples: Annotated[int, typer.Option(min=20, help="Triples of each pair of attributes.")] = 240,
) -> None:
    """Compares all ways on one checkpoint."""
    context, _ = open_context(checkpoint, data)

    def progress(text: str, total: int) -> Callable[[int], None]:
        print(f"{text} ({total})", flush=True)
        return lambda _: None

    splits = encode_splits(context, 5000, progress)
    classifier = fit_classifier(context, splits, progress)
    if classifier is None:
        raise typer.BadParameter("the shards have no annotations")
    compare(context, splits, classifier, triples)


if __name__ == "__main__":
    typer.run(main)
