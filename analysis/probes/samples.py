"""Whose codes the readers are fitted on, and whose they are scored on."""

from __future__ import annotations

from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, encoded_split
from analysis.metrics.digit_morphology import all_targets
from analysis.probes.dataset import Sample
from analysis.probes.estimators import FIT_LIMIT


def probe_samples(context: EvalContext, encoded: Encoded, progress: Progress) -> tuple[Sample, Sample]:
    """Training images to fit on, and the held-out ``encoded`` to score on.

    Of shards without a train split both are halves of the held-out images.
    """
    scored = _sample(context, encoded)
    split = context.shards.manifest.splits.get("train")
    if split is None or split.samples == 0:
        return scored.halves()
    count = min(FIT_LIMIT, split.samples)
    return _sample(context, encoded_split(context, "train", count, progress("training codes", count))), scored


def _sample(context: EvalContext, encoded: Encoded) -> Sample:
    return Sample(list(all_targets(context, encoded)), [z.numpy() for z in encoded.means], encoded.annotations.identity)
