"""All numbers of one checkpoint: what ``metrics.json`` holds (docs/formats.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.classifier.arithmetic_success import arithmetic_success
from analysis.classifier.classifier import AttributeClassifier, score_classifier, train_attribute_classifier
from analysis.classifier.edit_success import edit_success
from analysis.classifier.interventions import layer_intervention_effects
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded, with_codes
from analysis.metrics.disentanglement import disentanglement
from analysis.metrics.layer_usage import layer_measures
from analysis.metrics.memorization import generalization_gap, memorization_metrics
from analysis.metrics.reconstruction import reconstruction_errors, summarize
from analysis.probes.estimators import probe_all
from analysis.probes.samples import probe_samples

SCHEMA_VERSION = 2  # of metrics.json
TRAIN_IMAGES = 20_000  # shown to the classifier; also the examples whose mean codes are added and subtracted
COMPARED_IMAGES = 10_000  # training images among which nearest neighbors are looked for
TRAIN_ERRORS, HELD_OUT_ERRORS = 5_000, 10_000  # images that are reconstructed: three digits need no more
SHOWN_PER_HELD_OUT = 8  # images shown to the classifier in training, for each held-out image: so that it keeps pace
LEAST_SHOWN, MOST_SHOWN = 6_000, 32_000  # the most: 3 CPU minutes at 64x64


def fit_classifier(
    context: EvalContext, encoded: Encoded, train: np.ndarray, progress: Progress
) -> AttributeClassifier | None:
    """A classifier of these shards, trained on the images ``train`` of the train split and examined on the held-out ones.

    None where nothing is annotated.
    """
    manifest = context.shards.manifest
    shown = min(MOST_SHOWN, max(LEAST_SHOWN, SHOWN_PER_HELD_OUT * len(encoded)))
    notes = context.shards.annotations("train", len(train))
    names = tuple(manifest.attribute_names), tuple(manifest.factor_names)
    classifier = train_attribute_classifier(
        train, notes, names, context.device, shown, progress("training the classifier", shown)
    )
    return None if classifier is None else score_classifier(classifier, encoded)


def measure(
    context: EvalContext,
    encoded: Encoded,
    train: np.ndarray,
    classifier: AttributeClassifier | None,
    progress: Progress,
) -> dict[str, Any]:
    """The fields of ``metrics.json`` that are measured; those that need a classifier are left out without one.

    ``train`` are uint8 images (n, H, W, C) of the train split.
    """
    advance = progress("reconstructions", 2)
    errors = {"train": reconstruction_errors(context, train[: min(len(encoded), TRAIN_ERRORS)])}
    advance(1)
    few = slice(0, HELD_OUT_ERRORS)
    errors["valid"] = reconstruction_errors(context, encoded.images[few], [z[few] for z in encoded.means])
    advance(1)
    fitted, scored = probe_samples(context, encoded, progress)
    metrics: dict[str, Any] = {
        "reconstruction": {split: summarize(values) for split, values in errors.items()},
        "layers": layer_measures(context, encoded),
        **probe_all(fitted, scored, progress("what each layer knows", len(scored.targets))),
    }
    gap, gap_interval = generalization_gap(errors["train"]["l1"], errors["valid"]["l1"])
    memory, quality = memorization_metrics(context, train[:COMPARED_IMAGES], encoded.images, classifier)
    metrics["memorization"] = {"generalization_gap": gap, "generalization_gap_interval": gap_interval, **memory}
    if quality:
        metrics["sample_quality"] = quality
    advance = progress("disentanglement", 1)
    metrics["disentanglement"] = disentanglement(
        scored.layers, encoded.annotations.factors, encoded.annotations.identity
    )
    if found := metrics["disentanglement"].get("factors"):
        metrics["disentanglement"]["factors"] = [context.shards.manifest.factor_names[k] for k in found]
    advance(1)
    if classifier is not None:
        metrics |= _classified(context, encoded, train, classifier, progress)
    return metrics


def _classified(
    context: EvalContext, encoded: Encoded, train: np.ndarray, classifier: AttributeClassifier, progress: Progress
) -> dict[str, Any]:
    """What the classifier says of decoded images, and how well it classifies real ones."""
    notes = context.shards.annotations("train", len(train))
    examples = with_codes(context, train, notes, progress("codes of examples for arithmetic", len(train)))
    advance = progress("what each layer changes, arithmetic and edits, by the classifier", 3)
    interventions = layer_intervention_effects(context, encoded, classifier)
    advance(1)
    success = arithmetic_success(context, encoded, examples, classifier)
    advance(1)
    edits = edit_success(context, encoded, classifier)
    advance(1)
    return {
        "interventions": interventions,
        "arithmetic": success,
        "edits": edits,
        "classifier": {"n_train": classifier.n_train, "scores": classifier.scores},
    }
