"""Images' codes with what is known of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.inputs.encode import Encoded
from analysis.probes.scores import Kind

MOST_CLASSES = 1000
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
    if len(classes_of(notes.label)):
        yield Target("label", "label", np.where(notes.label < 0, np.nan, notes.label.astype(float)))


def classes_of(label: np.ndarray) -> np.ndarray:
    """The labels (K,) int64 among (n,), ascending; −1 is none. Nothing where too many to be classes."""
    found = np.unique(label[label >= 0])
    return found if len(found) <= MOST_CLASSES else found[:0]


@dataclass(frozen=True)
class Sample:
    """Codes of some images, (n, d_l) a layer, bottom first, and what is known of the images."""

    targets: Sequence[Target]
    layers: Sequence[np.ndarray]
    identity: np.ndarray | None = None  # (n,) int64, −1 where unknown

    def find(self, kind: Kind, name: str) -> Target | None:
        return next((target for target in self.targets if (target.kind, target.name) == (kind, name)), None)

    def halves(self) -> tuple[Sample, Sample]:
        """Two samples of half the images each, drawn at random; no person is in both."""
        first, second = (
            Sample(
                [Target(t.kind, t.name, t.values[rows]) for t in self.targets],
                [z[rows] for z in self.layers],
                None if self.identity is None else self.identity[rows],
            )
            for rows in random_halves(len(self.layers[0]), self.identity)
        )
        return first, second


def random_halves(count: int, identity: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two random halves of ``count`` images, no person in both: as equal as whole persons allow.

    What is the same in all images of a person could else be told by recognising the person. ``identity`` (count,),
    −1 for an image on its own; without one, or where all images are of one person, images are divided.
    """
    own = np.arange(count)
    known = np.full(count, -1) if identity is None else identity
    _, person = np.unique([known < 0, np.where(known < 0, own, known)], axis=1, return_inverse=True)
    if person.max(initial=0) == 0:
        person = own
    place = np.random.default_rng(SEED).permutation(count)[person]  # a person's images lie side by side
    order = np.argsort(place, kind="stable")
    middle = place[order[count // 2]]
    before = int((place < middle).sum())
    cut = before or int((place <= middle).sum())
    return order[:cut], order[cut:]
