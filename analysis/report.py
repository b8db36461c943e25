"""The report: measures and pictures of one or more checkpoints, as one self-contained page with its files beside it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from analysis import charts, pictures
from analysis.arithmetic import all_rows
from analysis.image_quality import reconstruction_errors, summarise
from analysis.layers import layer_measures
from analysis.overfitting import nearest_train_ratio
from analysis.probes import probe_all, targets
from analysis.subject import Encoded, Subject, held_out, load_split
from pipeline.checkpoint import replacing
from pipeline.pictures import save_png
from pipeline.run_folder import read_metrics

TRAIN_IMAGES = 10_000  # shown to the overfitting measures

Say = Callable[[str, int], Callable[[int], None]]
"""(what is being done, how many units it takes) -> a function that reports finished units."""


@dataclass
class Picture:
    """One picture of the page: its file, what it shows, how it was made and what to look for."""

    file: str
    title: str
    caption: str
    image: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture for the page itself, as WebP: a tenth of the PNG that it links to."""
        buffer = io.BytesIO()
        self.image.save(buffer, "WEBP", quality=90, method=4)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Findings:
    """All of one checkpoint."""

    subject: Subject
    name: str
    metrics: dict[str, Any]
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(subject: Subject, encoded: Encoded, say: Say) -> dict[str, Any]:
    """The numbers of ``metrics.json`` for one checkpoint (docs/formats.md)."""
    train, _ = load_split(subject.shards, "train", TRAIN_IMAGES)
    done = say("reconstructions", 2)
    errors = {"train": reconstruction_errors(subject, train[: len(encoded)])}
    done(1)
    errors["valid"] = reconstruction_errors(subject, encoded.images)
    done(1)
    metrics: dict[str, Any] = {
        "reconstruction": {split: summarise(values) for split, values in errors.items()},
        "layers": layer_measures(subject, encoded),
    }
    manifest = subject.shards.manifest
    wanted = list(targets(encoded, manifest.attribute_names, manifest.factor_names))
    done = say("what each layer knows", len(wanted))
    layers = [z.numpy() for z in encoded.means]
    metrics |= probe_all(wanted, layers, done)
    gap = metrics["reconstruction"]["valid"]["l1"] / metrics["reconstruction"]["train"]["l1"] - 1
    metrics["overfitting"] = {
        "generalisation_gap": gap,
        "generalisation_gap_interval": _gap_interval(errors["train"]["l1"], errors["valid"]["l1"]),
        **nearest_train_ratio(subject, train, encoded.images),
    }
    return metrics


def _gap_interval(train: np.ndarray, valid: np.ndarray) -> list[float]:
    """95 % bootstrap interval of mean(valid) / mean(train) − 1."""
    rng = np.random.default_rng(0)
    gaps = [rng.choice(valid, len(valid)).mean() / rng.choice(train, len(train)).mean() - 1 for _ in range(200)]
    return [float(v) for v in np.percentile(gaps, [2.5, 97.5])]


def draw(subject: Subject, encoded: Encoded, metrics: dict[str, Any], say: Say) -> tuple[list[Picture], list[str]]:
    """All pictures of one checkpoint, and what had to be left out."""
    depth = len(subject.sizes)
    names = subject.shards.manifest.attribute_names
    done = say("pictures", depth + 6)
    notes: list[str] = []
    drawn = [
        Picture("reconstructions.png", "Reconstructions", _RECONSTRUCTIONS, pictures.reconstructions(subject, encoded))
    ]
    done(1)
    for layer, dim in enumerate(subject.sizes):
        where = " (bottom: shallow)" if layer == 0 else " (top: deep)" if layer == depth - 1 else ""
        how = "a regular grid over [−3, 3]²" if dim == 2 else f"each of its {dim} numbers uniform in [−3, 3]"
        caption = _MANIFOLD.format(layer=layer, how=how, effect=metrics["layers"][layer]["effect"])
        image = pictures.manifold(subject, layer)
        drawn.append(Picture(f"manifold_layer{layer}.png", f"What layer {layer}{where} changes", caption, image))
        done(1)
    drawn.append(Picture("samples.png", "Samples", _SAMPLES, pictures.samples(subject)))
    done(1)
    rows, left_out = all_rows(subject, encoded, names)
    if left_out and names:
        listed = "; ".join(left_out).replace("\n", " ")
        notes.append(f"Left out of the arithmetic, for attributes absent or too rare: {listed}.")
    drawn.append(Picture("arithmetic.png", "Faces added and subtracted", _ARITHMETIC, pictures.arithmetic(rows)))
    done(1)
    for file, title, caption, image in (
        ("edits.png", "Adding and removing an attribute", _EDITS, pictures.edits(subject, encoded, names)),
        ("attributes.png", "What each layer knows", _KNOWS, charts.heat_map(metrics, depth)),
        ("training.png", "Training", _TRAINING, charts.training_curves(read_metrics(subject.path.parent))),
    ):
        if image is None:
            notes.append(f"{file} is not drawn: there is nothing to draw it from.")
        else:
            drawn.append(Picture(file, title, caption, image))
        done(1)
    return drawn, notes


def investigate(subject: Subject, name: str, limit: int, say: Say) -> Findings:
    """Everything about one checkpoint from up to ``limit`` held-out images. Raises SubjectError."""
    splits = subject.shards.manifest.splits
    available = sum(splits[s].samples for s in ("valid", "test") if s in splits)
    encoded = held_out(subject, limit, say("held-out codes", min(limit, available)))
    metrics = {
        "checkpoint": str(subject.path),
        "step": subject.step,
        "samples_seen": int(subject.state["progress"]["samples"]),
        "held_out": len(encoded),
        **measure(subject, encoded, say),
    }
    images, notes = draw(subject, encoded, metrics, say)
    return Findings(subject, name, metrics, images, notes)


def headline(metrics: dict[str, Any]) -> list[str]:
    """The figures that a person asks for first, a line each."""
    train, valid = metrics["reconstruction"]["train"], metrics["reconstruction"]["valid"]
    lines = [
        f"reconstruction of {valid['n']} held-out images: L1 {valid['l1']:.4f} of [0, 1], PSNR {valid['psnr']:.1f} dB, "
        f"SSIM {valid['ssim']:.3f} (train: L1 {train['l1']:.4f})",
        "effect of each layer, bottom first: " + ", ".join(f"{layer['effect']:.2f}" for layer in metrics["layers"]),
    ]
    for key, score, word in (("attributes", "auc", "AUC"), ("factors", "r2", "R²"), ("labels", "accuracy", "accuracy")):
        table = metrics[key]
        for layer in range(len(metrics["layers"])) if table else ():
            best = sorted((n for n in table if table[n]["best_layer"] == layer), key=lambda n: -table[n][score][layer])
            if best:
                listed = ", ".join(f"{name} {table[name][score][layer]:.2f}" for name in best[:5])
                lines.append(f"{key} that layer {layer} knows best ({word}): {listed}")
    return lines


def write_report(found: list[Findings], out: Path) -> Path:
    """Writes pictures, metrics.json and index.html into ``out``, each atomically; the page last. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    for findings in found:
        folder = out if len(found) == 1 else out / findings.name
        for picture in findings.pictures:
            save_png(picture.image, folder / picture.file)
    plain: Any = found[0].metrics if len(found) == 1 else {f.name: f.metrics for f in found}
    _write_text(out / "metrics.json", json.dumps(plain, indent=1) + "\n")
    loader = jinja2.PackageLoader("analysis")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.get_template("report.html").render(
        found=found,
        headline=headline,
        tables=charts.TABLES,
        today=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    _write_text(out / "index.html", page)
    return out / "index.html"


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_RECONSTRUCTIONS = (
    "Held-out images, which training never saw, each above its reconstruction from the mean codes of all layers. "
    "Look for what is lost: those details no layer has learned."
)
_MANIFOLD = (
    "Layer {layer} alone is varied, {how}; the other layers are drawn once from the prior and held. What changes from "
    "cell to cell is what this layer controls. Its effect is {effect:.2f}: the mean change of the picture when it "
    "alone is drawn anew, over the change when all layers are. Cells that all look alike would be a dead layer."
)
_SAMPLES = (
    "Decoded from codes drawn from the prior on all layers, nothing chosen. Where they look worse than the "
    "reconstructions, the codes of real images are not distributed like the prior: see the MMD of each layer."
)
_ARITHMETIC = (
    "a − b + c, computed on the codes of every layer and decoded; all images are held out. The rows of mean codes are "
    "decoded from averages over all images of that kind; in the other rows a, b and c are images as they are in the "
    "data. The result should have what a has beyond b, and otherwise be c."
)
_EDITS = (
    "Each row is a held-out image moved along one attribute's direction (mean code with it minus mean code without, on "
    "all layers) by −3 to 3 times its length. The attribute should come and go, and all else stay."
)
_KNOWS = (
    "How well boosted trees predict each attribute and factor from one layer's code alone, and from all together (last "
    "column): fitted on one half of the held-out images, scored on the other. The layer that knows most is framed in "
    "red; rows are sorted by it. The tables below add the linear readers and 95 % bootstrap intervals."
)
_TRAINING = (
    "From the run's metrics.jsonl. The MMD is the unbiased estimate over the global batch: it should fall to 0. "
    "Effects are of the averaged weights at each validation; the dotted line is 0.1."
)
