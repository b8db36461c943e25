"""Measures and draws one or more checkpoints, and writes the page with its files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from analysis.classifier.classifier import AttributeClassifier, fit_classifier
from analysis.figures import charts
from analysis.figures.gallery import Gallery, Panel, draw
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import encode_splits
from analysis.metrics.identity import IdentityCodes
from analysis.metrics.inception import NoInception, inception_quality
from analysis.metrics.summary import SCHEMA_VERSION, measure
from analysis.report.layer_summary import layer_labels
from analysis.report.page import render
from pipeline.run.run_dir import read_metrics, without_nan
from pipeline.training.previews import save_png
from preprocess.shards.atomic import write_file, write_json

NO_HELD_OUT = (
    "The shards have no held-out images (valid, test). Every figure is of training images and says nothing of new ones."
)


@dataclass
class CheckpointReport:
    """Everything about one checkpoint."""

    name: str
    metrics: dict[str, Any]
    gallery: Gallery
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the figures has to know first."""


def evaluate_checkpoint(
    context: EvalContext,
    name: str,
    limit: int,
    progress: Progress,
    classifiers: dict[str, AttributeClassifier | None],
    fid: bool = False,
    identity_codes: IdentityCodes | None = None,
) -> CheckpointReport:
    """Measures and draws everything about one checkpoint, on at most ``limit`` held-out images.

    Args:
        context: The checkpoint and its shards.
        name: What the checkpoint is called on the page.
        limit: See above.
        progress: Told what is being done.
        classifiers: The classifier of each set of shards (by digest) that was used before; a new one is added.
        fid: Whether to add FID and KID on Inception's features, or a note that says why not.
        identity_codes: Identity descriptors of the images by their file names.

    Raises:
        EvalContextError: There is no train split, or there are too few images.
    """
    splits = encode_splits(context, limit, progress)
    encoded = splits.held_out
    digest = context.shards.digest
    if digest not in classifiers:
        classifiers[digest] = fit_classifier(context, splits, progress)
    log = read_metrics(context.path.parent)
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": str(context.path),
        "step": context.step,
        "samples_seen": int(context.state["progress"].get("samples", 0)),
        "held_out": len(encoded),
        "provenance": provenance(context, log),
        **measure(context, splits, classifiers[digest], progress, identity_codes),
    }
    notes = [NO_HELD_OUT] if splits.held_out_is_train else []
    if fid:
        try:
            metrics.setdefault("sample_quality", {}).update(inception_quality(context, encoded.images, progress))
        except NoInception as reason:
            notes.append(f"no FID: {reason}")
    metrics = without_nan(metrics)
    gallery = draw(context, encoded, splits.train.images, metrics, log, layer_labels(metrics), progress)
    return CheckpointReport(name, metrics, gallery, notes)


def provenance(context: EvalContext, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collects what was trained on what: ``metrics.json``'s field ``provenance``. What is not known is None.

    Args:
        context: The checkpoint and its shards.
        log: Lines of the run's metrics.jsonl; none where it is not beside the checkpoint.
    """
    manifest, state = context.shards.manifest, context.state
    versions = state.get("versions")
    versions = {str(k): str(v)[:50] for k, v in versions.items()} if isinstance(versions, dict) else {}
    return {
        "recipe": context.config.name,
        "data": manifest.source.kind,
        "data_fingerprint": context.shards.digest,
        "trained_on_these_shards": context.shards.digest == state.get("manifest_digest"),
        "images": {name: split.samples for name, split in manifest.splits.items()},
        "image_shape": list(manifest.image_shape),
        "parameters": sum(parameter.numel() for parameter in context.vlae.parameters()),
        "training_seconds": state["progress"].get("seconds") or training_seconds(log),
        "hardware": str(state["hardware"])[:200] if state.get("hardware") else None,
        "versions": {"mmd-vlae": installed_version("mmd-vlae"), **versions},
        "checkpoint_sha256": sha256(context.path),
    }


def installed_version(package: str) -> str | None:
    """Version of a package; None where it is not installed, as in a copy of the code."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def training_seconds(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Adds up the time of the logged steps from their images per second; None without a log."""
    total, before = 0.0, 0
    for line in log:
        speed, samples = line.get("images_per_second"), line.get("samples")
        if speed and samples:
            total += max(0, samples - before) / speed
            before = samples
    return total or None


def write_report(reports: list[CheckpointReport], out: Path) -> Path:
    """Writes figures, metrics.json and index.html into ``out``, each atomically and the page last. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    for report in reports:
        folder = out if len(reports) == 1 else out / report.name
        for panel in report.gallery.panels:
            save_png(panel.image, folder / panel.file)
    comparison, content = None, reports[0].metrics
    if len(reports) > 1:
        content = {report.name: report.metrics for report in reports}
        comparison = Panel("comparison.png", "", charts.comparison(content))
        save_png(comparison.image, out / comparison.file)
    write_json(out / "metrics.json", content)
    write_file(out / "index.html", render(reports, comparison).encode())
    return out / "index.html"
