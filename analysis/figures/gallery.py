"""The figures of a report: how each was made, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from analysis.figures import charts, grids
from analysis.figures.latent_arithmetic import Row, all_rows, equation, named_directions
from analysis.figures.motion import FRAMES, LayerDirections, traversal_frames
from analysis.figures.tiles import contact_sheet, data_uri, short_label
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded

EDITED_ATTRIBUTES = 10
FIRST_ROWS = 3  # of arithmetic on the first screen
FACES, SLIDERS = 3, 2  # photographs that the page moves; sliders of each layer
FRAME = 96  # pixels of a slider's frame, at most: the page stays small
FRAME_QUALITY = 78  # of WebP


@dataclass
class Panel:
    """One picture of a figure: its file, what is written above it, and its pixels."""

    file: str
    label: str
    image: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture for the page itself."""
        return data_uri(self.image)


@dataclass
class Figure:
    """One or more pictures with one caption."""

    title: str
    made: str
    """How the pictures were made."""
    reading: str
    """How to read them."""
    panels: list[Panel] = field(default_factory=list)


@dataclass(frozen=True)
class Slider:
    """One slider of the page: what follows it, and its frames side by side."""

    label: str
    strip_uri: str


@dataclass(frozen=True)
class SliderFace:
    """One face that the page moves: its photograph, the sliders of each layer, bottom first, and width over height."""

    photograph_uri: str
    layers: tuple[tuple[Slider, ...], ...]
    aspect: float = 1.0


@dataclass
class Gallery:
    """All figures of one checkpoint by key, the faces of the sliders, and notes on what was left out."""

    figures: dict[str, Figure] = field(default_factory=dict)
    faces: list[SliderFace] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def panels(self) -> list[Panel]:
        """Every picture, each to be written as a file."""
        return [panel for figure in self.figures.values() for panel in figure.panels]

    def add(self, key: str, *panels: tuple[str, str, Image.Image | None]) -> None:
        """Adds a figure with its (file, label, picture); pictures that are None are left out."""
        drawn = [Panel(file, label, image) for file, label, image in panels if image is not None]
        if drawn:
            title, made, reading = CAPTIONS[key]
            self.figures[key] = Figure(title, made, reading, drawn)


def draw(
    context: EvalContext,
    encoded: Encoded,
    train: np.ndarray,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    directions: Sequence[LayerDirections],
    labels: Sequence[str],
    progress: Progress,
) -> Gallery:
    """Draws all figures of a checkpoint; those that have nothing to draw from are absent.

    Args:
        context: The checkpoint and its shards.
        encoded: Held-out images.
        train: uint8 images (n, H, W, C) of the train split.
        metrics: The content of metrics.json.
        log: Lines of the run's metrics.jsonl.
        directions: Of each layer, bottom first.
        labels: A short label for each layer.
        progress: Told what is being done.
    """
    advance = progress("figures", 12)
    gallery = Gallery()
    names = context.shards.manifest.attribute_names
    gallery.add("swaps", ("swaps.png", "", grids.swaps_of_held_out(context, encoded, labels)))
    advance(1)
    _add_arithmetic(gallery, context, encoded, metrics)
    advance(1)
    gallery.add("knows", ("attributes.png", "", charts.heat_map(metrics)))
    advance(1)
    _add_layers(gallery, context, encoded, directions, labels)
    advance(3)
    gallery.add("reconstructions", ("reconstructions.png", "", grids.reconstructions(context, encoded)))
    advance(1)
    gallery.add("samples", ("samples.png", "", grids.samples(context)))
    advance(1)
    wanted = most_changed(metrics, names)
    by_name = named_directions(encoded, names, wanted, range(len(context.sizes)))
    face = grids.closest_to_mean(encoded, grids.CANDIDATES)
    gallery.add("edits", ("edits.png", "", grids.edits(context, encoded, by_name, face)))
    advance(1)
    gallery.add("interpolations", ("interpolations.png", "", grids.interpolations(context, encoded)))
    advance(1)
    nearest = grids.nearest_training_images(context, train)
    gallery.add("nearest", ("nearest.png", "", nearest))
    advance(1)
    gallery.add("training", ("training.png", "", charts.training_curves(log, context.config.objective.reconstruction)))
    gallery.faces = slider_faces(context, encoded, directions)
    advance(1)
    return gallery


def _add_layers(
    gallery: Gallery,
    context: EvalContext,
    encoded: Encoded,
    directions: Sequence[LayerDirections],
    labels: Sequence[str],
) -> None:
    """Adds the figures that have one picture for each layer."""
    code = grids.code_of(encoded, grids.closest_to_mean(encoded, grids.CANDIDATES))
    layers = range(len(context.sizes))
    titles = [label.replace("\n", " ") for label in labels]
    around = [grids.face_manifold(context.vlae, code, layer, directions[layer].steps[:2]) for layer in layers]
    gallery.add("face_manifolds", *((f"face_manifold_layer{i}.png", titles[i], around[i]) for i in layers))
    gallery.add("manifolds", *((f"manifold_layer{i}.png", titles[i], grids.manifold(context, i)) for i in layers))
    rows = [grids.traversals(context, encoded, i) for i in layers]
    gallery.add("traversals", *((f"traversals_layer{i}.png", titles[i], rows[i]) for i in layers))


def _add_arithmetic(gallery: Gallery, context: EvalContext, encoded: Encoded, metrics: Mapping[str, Any]) -> None:
    """Adds all rows of a − b + c and, for the first screen, a few of photographs."""
    names = context.shards.manifest.attribute_names
    rows, left_out = all_rows(context, encoded, names)
    if left_out and names:
        equations = "; ".join(each.replace("\n", " ") for each in left_out)
        gallery.notes.append(f"Left out of the arithmetic, because an attribute is absent or too rare: {equations}.")
    gallery.add("arithmetic", ("arithmetic.png", "", grids.arithmetic(rows)))
    first = first_rows(rows, metrics)
    gallery.add("arithmetic_first", ("arithmetic_faces.png", "", grids.arithmetic(first) if first else None))


def slider_faces(context: EvalContext, encoded: Encoded, directions: Sequence[LayerDirections]) -> list[SliderFace]:
    """Decodes the frames of the sliders, for a few held-out images that differ much from each other."""
    faces = []
    for index in grids.varied(encoded, FACES):
        code, photograph = grids.code_of(encoded, index), encoded.images[index]
        layers = []
        for layer, found in enumerate(directions):
            sliders = []
            for number, step in enumerate(found.steps[:SLIDERS]):
                frames = traversal_frames(context.vlae, code, layer, step)
                label = found.labels[number] or f"direction {number + 1}"
                sliders.append(Slider(label, data_uri(contact_sheet(_reduced(frames), FRAMES, gap=0), FRAME_QUALITY)))
            layers.append(tuple(sliders))
        picture = Image.fromarray(photograph.repeat(3, 2) if photograph.shape[2] == 1 else photograph)
        faces.append(SliderFace(data_uri(picture, FRAME_QUALITY), tuple(layers), picture.width / picture.height))
    return faces


def _reduced(frames: torch.Tensor) -> torch.Tensor:
    """Frames (T, C, H, W), at most FRAME pixels high."""
    height, width = frames.shape[-2:]
    if height <= FRAME:
        return frames
    size = (FRAME, max(1, round(FRAME * width / height)))
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


def first_rows(rows: Sequence[Row], metrics: Mapping[str, Any]) -> list[Row]:
    """Chooses the rows of photographs for the first screen: of the pairs that succeed most often, else the first."""
    pairs = (metrics.get("arithmetic") or {}).get("pairs") or []
    pairs = sorted((pair for pair in pairs if pair["success"] is not None), key=lambda pair: -pair["success"])
    photographs = [row for row in rows if row.seen]
    best = [
        replace(row, label=f"wanted:\n{short_label(pair['t'])},\nnot {short_label(pair['s'])}".lower())
        for pair in pairs
        for row in photographs
        if row.label.startswith(equation(pair["s"], pair["t"]))
    ]
    return (best or photographs)[:FIRST_ROWS]


def most_changed(metrics: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Names the attributes whose edits change most in the classifier's eyes; without a classifier, the first ones."""
    measured = {name: row["target"] for name, row in (metrics.get("edits") or {}).items() if row["target"] is not None}
    order = sorted(measured, key=lambda name: -measured[name]) or list(names)
    return order[:EDITED_ATTRIBUTES]


CAPTIONS: dict[str, tuple[str, str, str]] = {
    "swaps": (
        "One face, with one layer at a time from another face",
        "Top row: photographs that training never saw. Second row: their reconstructions. Row “layer l”: the first "
        "face with layer l taken from the face above, all other layers kept. The faces are chosen to differ much.",
        "Look along a row. What changes from column to column is what that layer holds.",
    ),
    "arithmetic_first": (
        "Arithmetic on photographs: a − b + c",
        "a, b and c are photographs that training never saw. The last column is decoded from code(a) − code(b) + "
        "code(c). Where the data have attributes, the pairs that succeed most often are shown. All rows are in the "
        "section on arithmetic.",
        "The result should look like c plus what a has and b lacks.",
    ),
    "arithmetic": (
        "Faces added and subtracted",
        "a − b + c on the codes of every layer, decoded. Rows of mean codes are averages over all held-out images "
        "of a kind. In the other rows a, b and c are held-out photographs.",
        "The result should look like c plus what a has and b lacks.",
    ),
    "knows": (
        "What each layer knows, and what it changes",
        "Known to: how well a probe (a small network) predicts each attribute and factor from the code of one layer "
        "alone, and of all layers. It is fitted on training images and scored on held-out ones. Changed by: how much "
        "a classifier's answer about the decoded picture changes when one layer is sampled from the prior, over the "
        "change when all are.",
        "The best layer of a row is framed and bold. A gray row is known to no layer, and changes only as a by-"
        "product. An empty field: the classifier cannot tell. The layer that knows a thing may differ from the one "
        "that changes it.",
    ),
    "face_manifolds": (
        "Around a real face, layer by layer",
        "The middle cell is a held-out image as the model reconstructs it. One layer moves along the two directions"
        " that change the picture most, up to 2.5 standard deviations to each side. All other layers are held.",
        "All cells should stay the same picture but for what the layer holds.",
    ),
    "manifolds": (
        "The manifold of each layer, as in the paper",
        "As the paper's Figures 2 and 3: one layer runs over [−3, 3] (a regular grid where it has two dimensions, "
        "else uniform draws). The other layers are sampled once from the prior and held.",
        "What changes from cell to cell is what the layer controls. Cells that all look alike would be a dead layer.",
    ),
    "traversals": (
        "One dimension at a time",
        "The held-out image whose code is nearest to the mean. In each row one dimension of the layer runs from −3 "
        "to 3. Rows are sorted by how much the picture changes.",
        "A row that changes one thing has disentangled it. A row that changes nothing is an unused dimension.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Held-out images, each above its reconstruction from the mean codes of all layers.",
        "Details that are lost here are held by no layer.",
    ),
    "samples": (
        "Samples",
        "Decoded from codes sampled from the prior on all layers. Nothing is selected.",
        "If they look worse than the reconstructions, the codes of real images do not follow the prior: see the MMD.",
    ),
    "edits": (
        "Adding and removing attributes on one face",
        "One held-out photograph, moved along each attribute's direction (mean code with it minus mean code without"
        " it) by −3 to 3 times its length. At most ten attributes are shown, the largest measured change first.",
        "Only the named attribute should change.",
    ),
    "interpolations": (
        "From one face to another",
        "Two held-out images with distant codes, as the model reconstructs them. First row: all layers move in "
        "equal steps. Each row below moves one layer alone.",
        "The way should be smooth. Below the first row only what the layer holds should change.",
    ),
    "nearest": (
        "Samples beside their nearest training images",
        "Above: samples from the prior. Below each: the training image that is nearest to it in pixels.",
        "A sample that looks just like its neighbor would be a copy of a training image.",
    ),
    "training": (
        "Training",
        "From the run's metrics.jsonl. The MMD is the unbiased estimate over the global batch. Effects are of the "
        "averaged weights at each validation; the dotted line is 0.1.",
        "The MMD should fall to 0, and every layer's effect should stay above the dotted line.",
    ),
}
