"""Samples of probes: the codes of images and the targets that are known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded
from analysis.probes.digit_morphology import NAMES, digit_morphology
from analysis.probes.scores import Kind
from preprocess.shards.reader import Annotations

MAX_CLASSES = 1000
SEED = 0


@dataclass(frozen=True)
class Target:
    """Something to predict: values (n,) with NaN where unknown."""

    kind: Kind
    name: str
    values: np.ndarray


def targets(annotations: Annotations, attributes: Sequence[str], factors: Sequence[str]) -> Iterator[Target]:
    """All attributes, factors and the label of annotations whose columns have these names."""
    for name, values in zip(attributes, annotations.attributes.T.astype(float), strict=True):
        yield Target("attribute", name, np.where(values < 0, np.nan, values))
    for name, values in zip(factors, annotations.factors.T.astype(float), strict=True):
        yield Target("factor", name, np.where(np.isfinite(values), values, np.nan))
    label = annotations.label
    if len(classes_of(label)):
        yield Target("label", "label", np.where(label < 0, np.nan, label.astype(float)))


def all_targets(context: EvalContext, encoded: Encoded) -> Iterator[Target]:
    """The annotations as targets, and for labeled gray images (digits) stroke thickness and slant as factors."""
    manifest = context.shards.manifest
    yield from targets(encoded.annotations, manifest.attribute_names, manifest.factor_names)
    if encoded.images.shape[3] == 1 and (encoded.annotations.label >= 0).any():
        for name, values in zip(NAMES, digit_morphology(encoded.images).T, strict=True):
            yield Target("factor", name, values)


def classes_of(label: np.ndarray) -> np.ndarray:
    """The distinct labels (K,) int64 among (n,), ascending, without −1; none where there are too many for classes."""
    distinct = np.unique(label[label >= 0])
    return distinct if len(distinct) <= MAX_CLASSES else distinct[:0]


@dataclass(frozen=True)
class Sample:
    """Codes of images, (n, d_l) a layer, bottom first, with their targets."""

    targets: Sequence[Target]
    layers: Sequence[np.ndarray]
    identity: np.ndarray | None = None  # (n,) int64, −1 where unknown

    def find(self, kind: Kind, name: str) -> Target | None:
        """The target of this kind and name, if there is one."""
        return next((target for target in self.targets if (target.kind, target.name) == (kind, name)), None)

    def halves(self) -> tuple[Sample, Sample]:
        """Two random samples of half the images each; no person is in both."""
        first, second = (
            Sample(
                [Target(t.kind, t.name, t.values[indices]) for t in self.targets],
                [z[indices] for z in self.layers],
                None if self.identity is None else self.identity[indices],
            )
            for indices in random_halves(len(self.layers[0]), self.identity)
        )
        return first, second


def probe_sample(context: EvalContext, encoded: Encoded) -> Sample:
    """All targets and codes of ``encoded``."""
    return Sample(list(all_targets(context, encoded)), [z.numpy() for z in encoded.means], encoded.annotations.identity)


def random_halves(count: int, identity: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves, as equal as possible with no person in both.

    A probe could otherwise predict what all images of a person share by recognizing the person.

    Args:
        count: number of images.
        identity: (count,) int64, −1 for an image of an unknown person. Without identities, or where all images show
            one person, the images are divided.
    """
    indices = np.arange(count)
    known = np.full(count, -1) if identity is None else identity
    _, person = np.unique([known < 0, np.where(known < 0, indices, known)], axis=1, return_inverse=True)
    if person.max(initial=0) == 0:
        person = indices
    position = np.random.default_rng(SEED).permutation(count)[person]  # the images of a person stay together
    order = np.argsort(position, kind="stable")
    middle = position[order[count // 2]]
    before = int((position < middle).sum())
    cut = before or int((position <= middle).sum())
    return order[:cut], order[cut:]
