"""Whose codes the readers are fitted on, and whose they are scored on."""

from __future__ import annotations

from analysis.inputs.context import Encoded, EvalContext, Say, encoded_split
from analysis.metrics.digit_morphology import all_targets
from analysis.probes.dataset import Sample
from analysis.probes.estimators import FIT_LIMIT


def probe_samples(subject: EvalContext, encoded: Encoded, say: Say) -> tuple[Sample, Sample]:
    """Training images to fit on, and the held-out ``encoded`` to score on.

    Of shards without a train split both are halves of the held-out images.
    """
    scored = _sample(subject, encoded)
    split = subject.shards.manifest.splits.get("train")
    if split is None or split.samples == 0:
        return scored.halves()
    count = min(FIT_LIMIT, split.samples)
    return _sample(subject, encoded_split(subject, "train", count, say("training codes", count))), scored


def _sample(subject: EvalContext, encoded: Encoded) -> Sample:
    return Sample(list(all_targets(subject, encoded)), [z.numpy() for z in encoded.means], encoded.annotations.identity)
