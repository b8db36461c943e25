"""The report: measures and pictures of one or more checkpoints, as one self-contained page with its files beside it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from analysis.classifier.classifier import AttributeClassifier
from analysis.figures import charts
from analysis.figures.charts import as_table
from analysis.figures.gallery import Picture, draw
from analysis.inputs.context import EvalContext, EvalContextError, Progress
from analysis.inputs.encode import held_out, held_out_count, load_split
from analysis.metrics.inception import NoInception, inception_quality
from analysis.metrics.summary import SCHEMA_VERSION, TRAIN_IMAGES, fit_classifier, measure
from pipeline.checkpoint.file import replacing
from pipeline.training.pictures import save_png


@dataclass
class CheckpointReport:
    """All of one checkpoint."""

    context: EvalContext
    name: str
    metrics: dict[str, Any]
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def evaluate_checkpoint(
    context: EvalContext, name: str, limit: int, progress: Progress, classifiers: dict[str, AttributeClassifier | None], fid: bool = False
) -> CheckpointReport:
    """Everything about one checkpoint from up to ``limit`` held-out images. Raises EvalContextError.

    ``classifiers`` holds the classifier of each set of shards (by digest) that was looked at before; a new one is added. With
    ``fid`` also FID and KID on Inception's features, or a note that says why not.
    """
    if not (split := context.shards.manifest.splits.get("train")) or not split.samples:
        raise EvalContextError(
            f"{context.shards.folder} has no train split, with which a report compares: `analysis probe` does without"
        )
    encoded = held_out(context, limit, progress("held-out codes", held_out_count(context, limit)))
    train, _ = load_split(context.shards, "train", TRAIN_IMAGES)
    digest = context.shards.digest
    if digest not in classifiers:
        classifiers[digest] = fit_classifier(context, encoded, train, progress)
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": str(context.path),
        "step": context.step,
        "samples_seen": int(context.state["progress"].get("samples", 0)),
        "held_out": len(encoded),
        **measure(context, encoded, train, classifiers[digest], progress),
    }
    missed = []
    if fid:
        try:
            metrics.setdefault("sample_quality", {}).update(inception_quality(context, encoded.images, progress))
        except NoInception as reason:
            missed = [f"no FID: {reason}"]
    images, notes = draw(context, encoded, train, metrics, progress)
    return CheckpointReport(context, name, metrics, images, [*missed, *notes])


def headline(metrics: dict[str, Any]) -> list[str]:
    """The figures that a person asks for first, a line each."""
    train, valid = metrics["reconstruction"]["train"], metrics["reconstruction"]["valid"]
    lines = [
        f"reconstruction of {valid['n']} held-out images: L1 {valid['l1']:.4f} of [0, 1], PSNR {valid['psnr']:.1f} dB, "
        f"SSIM {valid['ssim']:.3f} (train: L1 {train['l1']:.4f})",
        "effect of each layer, bottom first: " + ", ".join(f"{layer['effect']:.2f}" for layer in metrics["layers"]),
    ]
    for key, score, word in (("attributes", "auc", "AUC"), ("factors", "r2", "R²"), ("labels", "accuracy", "accuracy")):
        known = {name: row for name, row in as_table(metrics, key).items() if row["best_layer_significant"]}
        for layer in range(len(metrics["layers"])):
            best = [name for name, row in known.items() if row["best_layer"] == layer]
            best.sort(key=lambda name, layer=layer, score=score, known=known: -known[name][score][layer])
            if best:
                listed = ", ".join(f"{name} {known[name][score][layer]:.2f}" for name in best[:5])
                lines.append(f"{key} that layer {layer} knows best ({word}): {listed}")
    success = metrics.get("arithmetic", {})
    if success.get("success") is not None:
        lines.append(
            f"arithmetic a − b + c: success {success['success']:.2f} (ceiling {success['reconstruction_ceiling']:.2f}, "
            f"chance {success['chance']:.2f}) over {len(success['pairs'])} pairs of attributes, by the classifier"
        )
    return lines


def write_report(found: list[CheckpointReport], out: Path) -> Path:
    """Writes pictures, metrics.json and index.html into ``out``, each atomically; the page last. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    for findings in found:
        folder = out if len(found) == 1 else out / findings.name
        for picture in findings.pictures:
            save_png(picture.image, folder / picture.file)
    plain: Any = found[0].metrics if len(found) == 1 else {f.name: f.metrics for f in found}
    write_json(plain, out / "metrics.json")
    loader = jinja2.PackageLoader("analysis.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    side_by_side = None
    if len(found) > 1:
        image = charts.comparison({f.name: f.metrics for f in found})
        side_by_side = Picture("comparison.png", "Against the training step", _COMPARISON, image)
        save_png(image, out / side_by_side.file)
    page = environment.get_template("report.html").render(
        found=found,
        side_by_side=side_by_side,
        headline=headline,
        as_table=as_table,
        tables=charts.TABLES,
        today=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    _write_text(out / "index.html", page)
    return out / "index.html"


def _plain(value: Any) -> Any:
    """JSON has no NaN: what could not be estimated is null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(value: Any, path: Path) -> None:
    """Writes plain values atomically; what is not a number becomes null."""
    _write_text(path, json.dumps(_plain(value), indent=1, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_COMPARISON = (
    "The checkpoints of this report in the order of their training steps, each by the figures of its own section. "
    "Of one run it shows how training went; of several, which is ahead at equal steps."
)
