"""All figures of one checkpoint: the content of ``metrics.json`` (docs/formats.md)."""

from __future__ import annotations

from typing import Any

from analysis.classifier.arithmetic_success import arithmetic_success
from analysis.classifier.classifier import AttributeClassifier
from analysis.classifier.edit_success import edit_success
from analysis.classifier.interventions import layer_intervention_effects
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import EncodedSplits, split_size
from analysis.metrics.disentanglement import disentanglement
from analysis.metrics.identity import IdentityCodes, descriptor_scores, verification
from analysis.metrics.layer_usage import layer_measures
from analysis.metrics.levels import level_table, mean_scores
from analysis.metrics.memorization import generalization_gap, memorization_metrics
from analysis.metrics.reconstruction import reconstruction_errors, summarize
from analysis.probes.dataset import Sample, probe_sample
from analysis.probes.probe import probe_all

SCHEMA_VERSION = 2  # of metrics.json
TRAIN_ERRORS, HELD_OUT_ERRORS = 1_500, 3_000  # images that are reconstructed: three digits need no more


def measure(
    context: EvalContext,
    splits: EncodedSplits,
    classifier: AttributeClassifier | None,
    progress: Progress,
    identity_codes: IdentityCodes | None = None,
) -> dict[str, Any]:
    """Measures one checkpoint.

    Args:
        context: the checkpoint and its shards.
        splits: training and held-out images with their codes.
        classifier: of these shards; None where there are no annotations.
        progress: told what is being done.
        identity_codes: identity descriptors of the images by their file names.

    Returns:
        The fields of ``metrics.json`` whose data are there.
    """
    train, encoded = splits.train, splits.held_out
    metrics: dict[str, Any] = {"held_out_is_train": splits.held_out_is_train}
    few = {"train": train.part(slice(TRAIN_ERRORS)), "valid": encoded.part(slice(HELD_OUT_ERRORS))}
    advance = progress("reconstructions", sum(map(len, few.values())))
    errors = {split: reconstruction_errors(context, images, advance) for split, images in few.items()}
    metrics["reconstruction"] = {split: summarize(values) for split, values in errors.items()}
    metrics["layers"] = layer_measures(context, encoded, progress)
    fitted, scored = probe_sample(context, train), probe_sample(context, encoded)
    metrics |= probe_all(fitted, scored, progress)
    memory, quality = memorization_metrics(context, train.images, encoded.images, classifier, progress)
    if not splits.held_out_is_train:
        gap, gap_interval = generalization_gap(errors["train"]["l1"], errors["valid"]["l1"])
        metrics["memorization"] = {"generalization_gap": gap, "generalization_gap_interval": gap_interval, **memory}
    if quality:
        metrics["sample_quality"] = quality
    metrics |= _of_factors_and_people(context, splits, (fitted, scored), identity_codes, progress)
    if classifier is not None:
        metrics |= {
            "interventions": layer_intervention_effects(context, encoded, classifier, progress),
            "arithmetic": arithmetic_success(context, encoded, train, classifier, progress),
            "edits": edit_success(context, encoded, classifier, progress),
            "classifier": {"n_train": classifier.n_train, "scores": classifier.scores},
        }
    if levels := level_table(metrics, len(context.sizes)):
        metrics["levels"] = levels
    if means := mean_scores(metrics, len(context.sizes)):
        metrics["mean_scores"] = means
    return metrics


def _of_factors_and_people(
    context: EvalContext,
    splits: EncodedSplits,
    samples: tuple[Sample, Sample],
    identity_codes: IdentityCodes | None,
    progress: Progress,
) -> dict[str, Any]:
    """``disentanglement``, and ``identity`` where people or their descriptors are known."""
    fitted, scored = samples
    encoded, names = splits.held_out, context.shards.manifest.factor_names
    advance = progress("disentanglement", len(names))
    scores = disentanglement(scored.layers, encoded.annotations.factors, encoded.annotations.identity, advance)
    if "factors" in scores:
        scores["factors"] = [names[column] for column in scores["factors"]]
    people = encoded.annotations.identity
    identity: dict[str, Any] = {}
    if (people >= 0).any() and not splits.held_out_is_train:
        everyone = context.shards.annotations("train", split_size(context.shards, "train"))
        identity = verification(scored.layers, people, everyone.identity)
    if identity_codes is not None:
        identity |= descriptor_scores(
            (fitted.layers, splits.train.annotations.keys), (scored.layers, encoded.annotations.keys), identity_codes
        )
    return {"disentanglement": scores} | ({"identity": identity} if identity else {})
