"""Whose codes the readers are fitted on, and whose they are scored on."""

from __future__ import annotations

from analysis.probes import FIT_LIMIT
from analysis.samples import Sample
from analysis.strokes import all_targets
from analysis.subject import Encoded, Say, Subject, encoded_split


def probe_samples(subject: Subject, encoded: Encoded, say: Say) -> tuple[Sample, Sample]:
    """Training images to fit on, and the held-out ``encoded`` to score on.

    Of shards without a train split both are halves of the held-out images.
    """
    scored = _sample(subject, encoded)
    split = subject.shards.manifest.splits.get("train")
    if split is None or split.samples == 0:
        return scored.halves()
    count = min(FIT_LIMIT, split.samples)
    return _sample(subject, encoded_split(subject, "train", count, say("training codes", count))), scored


def _sample(subject: Subject, encoded: Encoded) -> Sample:
    return Sample(list(all_targets(subject, encoded)), [z.numpy() for z in encoded.means], encoded.annotations.identity)
