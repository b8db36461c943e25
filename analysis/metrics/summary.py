"""All numbers of one checkpoint: what ``metrics.json`` holds (docs/formats.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.classifier.arithmetic_success import arithmetic_success
from analysis.classifier.classifier import Judge, examine, train_attribute_classifier
from analysis.classifier.edit_success import edit_success
from analysis.classifier.interventions import layer_intervention_effects
from analysis.inputs.context import Encoded, EvalContext, Say, with_codes
from analysis.metrics.disentanglement import disentanglement
from analysis.metrics.layer_usage import layer_measures
from analysis.metrics.memorization import generalisation_gap, memorization_metrics
from analysis.metrics.reconstruction import reconstruction_errors, summarize
from analysis.probes.estimators import probe_all
from analysis.probes.samples import probe_samples

TRAIN_IMAGES = 20_000  # shown to the judge; also the examples whose mean codes are added and subtracted
COMPARED_IMAGES = 10_000  # training images among which nearest neighbors are looked for
TRAIN_ERRORS, HELD_OUT_ERRORS = 5_000, 10_000  # images that are reconstructed: three digits need no more
SHOWN_PER_HELD_OUT = 8  # images shown to the judge in training, for each held-out image: so that it keeps pace
LEAST_SHOWN, MOST_SHOWN = 6_000, 32_000  # the most: 3 CPU minutes at 64x64


def fit_classifier(subject: EvalContext, encoded: Encoded, train: np.ndarray, say: Say) -> Judge | None:
    """A judge of these shards, trained on the images ``train`` of the train split and examined on the held-out ones.

    None where nothing is annotated.
    """
    manifest = subject.shards.manifest
    shown = min(MOST_SHOWN, max(LEAST_SHOWN, SHOWN_PER_HELD_OUT * len(encoded)))
    notes = subject.shards.annotations("train", len(train))
    names = tuple(manifest.attribute_names), tuple(manifest.factor_names)
    judge = train_attribute_classifier(train, notes, names, subject.device, shown, say("training the judge", shown))
    return None if judge is None else examine(judge, encoded)


def measure(subject: EvalContext, encoded: Encoded, train: np.ndarray, judge: Judge | None, say: Say) -> dict[str, Any]:
    """The fields of ``metrics.json`` that are measured; those that need a judge are left out without one.

    ``train`` are uint8 images (n, H, W, C) of the train split.
    """
    done = say("reconstructions", 2)
    errors = {"train": reconstruction_errors(subject, train[: min(len(encoded), TRAIN_ERRORS)])}
    done(1)
    few = slice(0, HELD_OUT_ERRORS)
    errors["valid"] = reconstruction_errors(subject, encoded.images[few], [z[few] for z in encoded.means])
    done(1)
    fitted, scored = probe_samples(subject, encoded, say)
    metrics: dict[str, Any] = {
        "reconstruction": {split: summarize(values) for split, values in errors.items()},
        "layers": layer_measures(subject, encoded),
        **probe_all(fitted, scored, say("what each layer knows", len(scored.targets))),
    }
    gap, gap_interval = generalisation_gap(errors["train"]["l1"], errors["valid"]["l1"])
    memory, quality = memorization_metrics(subject, train[:COMPARED_IMAGES], encoded.images, judge)
    metrics["overfitting"] = {"generalisation_gap": gap, "generalisation_gap_interval": gap_interval, **memory}
    if quality:
        metrics["sample_quality"] = quality
    done = say("disentanglement", 1)
    metrics["disentanglement"] = disentanglement(
        scored.layers, encoded.annotations.factors, encoded.annotations.identity
    )
    if found := metrics["disentanglement"].get("factors"):
        metrics["disentanglement"]["factors"] = [subject.shards.manifest.factor_names[k] for k in found]
    done(1)
    if judge is not None:
        metrics |= _judged(subject, encoded, train, judge, say)
    return metrics


def _judged(subject: EvalContext, encoded: Encoded, train: np.ndarray, judge: Judge, say: Say) -> dict[str, Any]:
    """What the judge says of decoded images, and how well it reads real ones."""
    notes = subject.shards.annotations("train", len(train))
    examples = with_codes(subject, train, notes, say("codes of examples for arithmetic", len(train)))
    done = say("what each layer changes, arithmetic and edits, by the judge", 3)
    controls = layer_intervention_effects(subject, encoded, judge)
    done(1)
    success = arithmetic_success(subject, encoded, examples, judge)
    done(1)
    edits = edit_success(subject, encoded, judge)
    done(1)
    return {
        "controls": controls,
        "arithmetic": success,
        "edits": edits,
        "judge": {"n_train": judge.n_train, "scores": judge.scores},
    }
