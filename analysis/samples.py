"""Images' codes with what is known of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.scores import Kind
from analysis.subject import Encoded

SEED = 0


@dataclass(frozen=True)
class Target:
    """Something to predict: values (n,) with NaN where unknown."""

    kind: Kind
    name: str
    values: np.ndarray


def targets(encoded: Encoded, attributes: Sequence[str], factors: Sequence[str]) -> Iterator[Target]:
    """All attributes, factors and the label that ``encoded`` is annotated with."""
    notes = encoded.annotations
    for column, name in enumerate(attributes):
        known = notes.attributes[:, column].astype(float)
        yield Target("attribute", name, np.where(known < 0, np.nan, known))
    for column, name in enumerate(factors):
        yield Target("factor", name, notes.factors[:, column].astype(float))
    label = notes.label.astype(float)
    if (label >= 0).any():
        yield Target("label", "label", np.where(label < 0, np.nan, label))


@dataclass(frozen=True)
class Sample:
    """Codes of some images, (n, d_l) a layer, bottom first, and what is known of the images."""

    targets: Sequence[Target]
    layers: Sequence[np.ndarray]

    def find(self, kind: Kind, name: str) -> Target | None:
        return next((target for target in self.targets if (target.kind, target.name) == (kind, name)), None)

    def halves(self) -> tuple[Sample, Sample]:
        """Two samples of half the images each, drawn at random."""
        order = np.random.default_rng(SEED).permutation(len(self.layers[0]))
        parts = (order[: len(order) // 2], order[len(order) // 2 :])
        first, second = (
            Sample([Target(t.kind, t.name, t.values[rows]) for t in self.targets], [z[rows] for z in self.layers])
            for rows in parts
        )
        return first, second
