"""Frames that the page moves without a server: strips of real faces along each layer's most effective directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn import functional as F

from analysis.figures.grids import code_of, varied
from analysis.figures.motion import FRAMES, LayerDirections, strip, traversal_frames
from analysis.figures.tiles import data_uri
from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded

FACES = 3
DIRECTIONS = 2  # sliders per layer
LARGEST = 96  # pixels of a frame's side: the page stays small
QUALITY = 78  # of WebP


@dataclass(frozen=True)
class Slider:
    """One slider: what follows it, and its frames side by side."""

    label: str
    strip_uri: str


@dataclass(frozen=True)
class SliderFace:
    """One face: its photograph, and the sliders of each layer, bottom first."""

    photograph_uri: str
    layers: tuple[tuple[Slider, ...], ...]
    frames: int = FRAMES


def slider_faces(context: EvalContext, encoded: Encoded, directions: Sequence[LayerDirections]) -> list[SliderFace]:
    """Decodes the frames of a few held-out images that differ much from each other."""
    faces = []
    for index in varied(encoded, FACES):
        code = code_of(encoded, index)
        layers = []
        for layer, found in enumerate(directions):
            sliders = []
            for number, step in enumerate(found.steps[:DIRECTIONS]):
                frames = traversal_frames(context.vlae, code, layer, step)
                sliders.append(Slider(found.labels[number] or f"direction {number + 1}", _strip_uri(frames)))
            layers.append(tuple(sliders))
        faces.append(SliderFace(_photograph_uri(encoded, index), tuple(layers)))
    return faces


def _strip_uri(frames: torch.Tensor) -> str:
    """Frames (T, C, H, W) in [−1, 1] side by side as a data URI, at most LARGEST pixels high."""
    if frames.shape[-2] > LARGEST:
        size = (LARGEST, round(LARGEST * frames.shape[-1] / frames.shape[-2]))
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True)
    return data_uri(strip(frames), QUALITY)


def _photograph_uri(encoded: Encoded, index: int) -> str:
    pixels = encoded.images[index]
    picture = Image.fromarray(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels)
    return data_uri(picture, QUALITY)
