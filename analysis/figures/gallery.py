"""The figures of a report: how each was made, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from analysis.figures import charts, grids
from analysis.figures.latent_arithmetic import Row, all_rows, attribute_direction, equation
from analysis.figures.motion import FRAMES, effective_directions, traversal_frames
from analysis.figures.tiles import contact_sheet, data_uri, short_label
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import Encoded
from pipeline.model.pretrained_schema import LayerLatents

DIRECTION_IMAGES = 4  # images around which directions are measured
EDITED_ATTRIBUTES = 10
FIRST_ROWS = 3  # of arithmetic on the first screen
FACES, SLIDERS = 3, 2  # photographs that the page moves; sliders of each layer
FRAME = 96  # pixels of a slider's frame, at most: the page stays small
FRAME_QUALITY = 78  # of WebP
CAPTIONS: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text("utf-8"))
"""Title, how it was made and how to read it, for each figure in the order of the page."""


class Panel(NamedTuple):
    """One picture of a figure: its file, what is written above it, and its pixels."""

    file: str
    label: str
    image: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture for the page itself."""
        return data_uri(self.image)


class Figure(NamedTuple):
    """One or more pictures with one caption: their title, how they were made, and how to read them."""

    title: str
    made: str
    reading: str
    panels: list[Panel]


class Slider(NamedTuple):
    """One slider of the page: what follows it, and its frames side by side."""

    label: str
    strip_uri: str


class SliderFace(NamedTuple):
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

    def add(self, key: str, drawn: Image.Image | Sequence[Image.Image] | None, labels: Sequence[str] = ()) -> None:
        """Adds a figure of one picture, or of one for each layer with these labels, bottom first; None adds nothing."""
        if isinstance(drawn, Image.Image):
            self.figures[key] = Figure(**CAPTIONS[key], panels=[Panel(f"{key}.png", "", drawn)])
        elif drawn is not None:
            named = enumerate(zip(labels, drawn, strict=True))
            panels = [Panel(f"{key}_layer{layer}.png", label, image) for layer, (label, image) in named]
            self.figures[key] = Figure(**CAPTIONS[key], panels=panels)


def draw(
    context: EvalContext,
    encoded: Encoded,
    train: np.ndarray,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
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
        labels: A short label for each layer.
        progress: Told what is being done.
    """
    gallery, vlae, names = Gallery(), context.vlae, context.shards.manifest.attribute_names
    advance = progress("figures", len(CAPTIONS))
    rows, left_out = all_rows(context, encoded, names)
    if left_out and names:
        equations = "; ".join(each.replace("\n", " ") for each in left_out)
        gallery.notes.append(f"Left out of the arithmetic, because an attribute is absent or too rare: {equations}.")
    directions, followed = effective_directions(context, encoded, [z[:DIRECTION_IMAGES] for z in encoded.means])
    gallery.faces = slider_faces(context, encoded, directions, followed)
    typical = grids.closest_to_mean(encoded)
    code, layers = grids.code_of(encoded, typical), range(len(labels))

    def figures() -> Iterator[tuple[str, Image.Image | list[Image.Image] | None]]:
        yield "swaps", grids.swaps_of_held_out(context, encoded, labels)
        first = first_rows(rows, metrics)
        yield "arithmetic_faces", grids.arithmetic(first) if first else None
        yield "attributes", charts.heat_map(metrics)
        yield "face_manifold", [grids.face_manifold(vlae, code, i, directions[i].directions[:2]) for i in layers]
        yield "manifold", [grids.manifold(vlae, i) for i in layers]
        yield "reconstructions", grids.reconstructions(context, encoded)
        yield "samples", grids.samples(context)
        yield "interpolations", grids.interpolations(context, encoded)
        yield "arithmetic", grids.arithmetic(rows)
        by = {name: attribute_direction(encoded, names.index(name)) for name in most_changed(metrics, names)}
        yield "edits", grids.edits(context, encoded, {name: d for name, d in by.items() if d is not None}, typical)
        yield "nearest", grids.nearest_training_images(context, train)
        yield "training", charts.training_curves(log, context.config.objective.reconstruction)
        yield "traversals", [grids.traversals(context, encoded, i) for i in layers]

    titles = [label.replace("\n", " ") for label in labels]
    for key, drawn in figures():
        gallery.add(key, drawn, titles)
        advance(1)
    return gallery


def slider_faces(
    context: EvalContext, encoded: Encoded, directions: Sequence[LayerLatents], labels: Sequence[Sequence[str]]
) -> list[SliderFace]:
    """Decodes the frames of the sliders, for a few held-out images that differ much from each other."""
    faces = []
    for index in grids.varied(encoded, FACES):
        code, photograph = grids.code_of(encoded, index), encoded.images[index]
        layers = []
        for layer, (latents, followed) in enumerate(zip(directions, labels, strict=True)):
            sliders = []
            for number, step in enumerate(latents.directions[:SLIDERS]):
                frames = _reduced(traversal_frames(context.vlae, code, layer, step))
                strip = data_uri(contact_sheet(frames, FRAMES, gap=0), FRAME_QUALITY)
                sliders.append(Slider(followed[number] or f"direction {number + 1}", strip))
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
        row._replace(label=f"wanted:\n{short_label(pair['t'])},\nnot {short_label(pair['s'])}".lower())
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
