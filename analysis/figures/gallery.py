"""All pictures of one checkpoint, each with a caption: how it was made, and what to look for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from analysis.figures import charts
from analysis.figures import grids as pictures
from analysis.figures.latent_arithmetic import all_rows
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded
from analysis.metrics.summary import COMPARED_IMAGES
from pipeline.run.run_dir import read_metrics


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
        self.image.save(buffer, "WEBP", quality=88, method=2)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _of_layers(context: EvalContext, encoded: Encoded, metrics: dict[str, Any]) -> Iterator[Picture]:
    """For each layer its manifold and its traversals."""
    depth = len(context.sizes)
    for layer, dim in enumerate(context.sizes):
        where = " (bottom: shallow)" if layer == 0 else " (top: deep)" if layer == depth - 1 else ""
        how = "a regular grid over [−3, 3]²" if dim == 2 else f"each of its {dim} numbers uniform in [−3, 3]"
        caption = _MANIFOLD.format(layer=layer, how=how, effect=metrics["layers"][layer]["effect"])
        image = pictures.manifold(context, layer)
        yield Picture(f"manifold_layer{layer}.png", f"What layer {layer}{where} changes", caption, image)
        caption = _TRAVERSALS.format(layer=layer)
        image = pictures.traversals(context, encoded, layer)
        yield Picture(f"traversals_layer{layer}.png", f"Layer {layer}{where}, number by number", caption, image)


def draw(
    context: EvalContext, encoded: Encoded, train: np.ndarray, metrics: dict[str, Any], progress: Progress
) -> tuple[list[Picture], list[str]]:
    """All pictures, and what had to be left out. ``train``: uint8 images (n, H, W, C) of the train split."""
    names = context.shards.manifest.attribute_names
    advance = progress("pictures", 2 * len(context.sizes) + 8)
    notes: list[str] = []
    drawn: list[Picture] = []

    def add(file: str, title: str, caption: str, image: Image.Image | None) -> None:
        if image is None:
            notes.append(f"{file} is not drawn: there is nothing to draw it from.")
        else:
            drawn.append(Picture(file, title, caption, image))
        advance(1)

    add("reconstructions.png", "Reconstructions", _RECONSTRUCTIONS, pictures.reconstructions(context, encoded))
    for picture in _of_layers(context, encoded, metrics):
        drawn.append(picture)
        advance(1)
    add("attributes.png", "What each layer knows, and what it changes", _KNOWS, charts.heat_map(metrics))
    rows, left_out = all_rows(context, encoded, names)
    if left_out and names:
        listed = "; ".join(equation.replace("\n", " ") for equation in left_out)
        notes.append(f"Left out of the arithmetic, for attributes absent or too rare: {listed}.")
    add("arithmetic.png", "Faces added and subtracted", _ARITHMETIC, pictures.arithmetic(rows))
    add("edits.png", "Adding and removing an attribute", _EDITS, pictures.edits(context, encoded, names))
    add("interpolations.png", "From one face to another", _INTERPOLATIONS, pictures.interpolations(context, encoded))
    add("samples.png", "Samples", _SAMPLES, pictures.samples(context))
    nearest = pictures.nearest_training_images(context, train[:COMPARED_IMAGES])
    add("nearest.png", "Samples beside their nearest training images", _NEAREST, nearest)
    log = read_metrics(context.path.parent)
    add("training.png", "Training", _TRAINING, charts.training_curves(log))
    return drawn, notes


_RECONSTRUCTIONS = (
    "Held-out images, which training never saw, each above its reconstruction from the mean codes of all layers. Look "
    "for what is lost: those details no layer has learned."
)
_MANIFOLD = (
    "Layer {layer} alone is varied, {how}; the other layers are drawn once from the prior and held. What changes from "
    "cell to cell is what this layer controls. Its effect is {effect:.2f}: the mean change of the picture when it "
    "alone is drawn anew, over the change when all layers are. Cells that all look alike would be a dead layer."
)
_TRAVERSALS = (
    "The held-out image whose code is nearest to the mean. In each row one number of layer {layer} runs from −3 to 3 "
    "while all else is held; the rows are sorted by how much the picture changes, most first. A row that changes one "
    "thing has disentangled it; rows at the bottom that change nothing are unused."
)
_SAMPLES = (
    "Decoded from codes drawn from the prior on all layers, nothing chosen. Where they look worse than the "
    "reconstructions, the codes of real images are not distributed like the prior: see the MMD of each layer."
)
_NEAREST = (
    "Above: samples from the prior. Below each: the training image nearest to it in pixels. Samples that look just "
    "like their neighbor would be copies of the training set."
)
_ARITHMETIC = (
    "a − b + c, computed on the codes of every layer and decoded; all images are held out. The rows of mean codes are "
    "decoded from averages over all images of that kind; in the other rows a, b and c are images as they are in the "
    "data. The result should have what a has beyond b, and otherwise be c."
)
_EDITS = (
    "Each row is a held-out image moved along one attribute's direction (mean code with it minus mean code without, "
    "on all layers) by −3 to 3 times its length. The attribute should come and go, and all else stay."
)
_INTERPOLATIONS = (
    "Two held-out images with distant codes, first and last column, as the model reconstructs them. First row: all "
    "layers go from the one to the other in equal steps. Each row below moves one layer alone and holds the others at "
    "the first image."
)
_KNOWS = (
    "Left: how well boosted trees predict each attribute and factor from one layer's code alone, and from all "
    "together (last column): fitted on training images, scored on held-out ones. The layer that knows "
    "most is framed where it clearly knows more than chance. Right: how much a classifier's reading of the decoded picture "
    "changes when one layer alone is drawn anew, over the change when all are; empty where the classifier cannot tell. A "
    "layer that knows a thing and the layer that controls it may differ; what no layer knows changes as a by-product."
)
_TRAINING = (
    "From the run's metrics.jsonl. The MMD is the unbiased estimate over the global batch: it should fall to 0. "
    "Effects are of the averaged weights at each validation; the dotted line is 0.1."
)
