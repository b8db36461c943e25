"""What the page shows, computed from codes: no page and no state in here."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from analysis.figures.motion import gif_bytes
from analysis.model.arithmetic import Codes
from analysis.model.ladder import LadderModel
from pipeline.model.pixels import from_array, to_rgb

Face = Codes
"""One code: (1, d_l) on the CPU for each layer, bottom first."""

RELIABLE = 0.7  # AUC with which an attribute's direction tells held-out images apart, or it gets no slider
DIRECTIONS = 5  # sliders for each layer
FRAMES = 24
PLAIN_WORDS = {"yaw": "turn (yaw)", "pitch": "nod (pitch)", "roll": "tilt (roll)", "male": "man or woman"}


def encoded_faces(model: LadderModel, images: Tensor) -> list[Face]:
    """Codes of images (n, C, H, W) in [−1, 1], one at a time."""
    codes = [z.cpu() for z in model.encode(images)]
    return [[z[i : i + 1] for z in codes] for i in range(len(images))]


def stored_faces(model: LadderModel) -> list[Face]:
    """The held-out images that came with the model, encoded."""
    return [] if model.faces is None else encoded_faces(model, from_array(model.faces))


def prior_face(model: LadderModel, seed: int) -> Face:
    """A face of nobody."""
    return [z.cpu() for z in model.prior(1, seed)]


def reliable_attributes(model: LadderModel) -> list[str]:
    """Attributes whose direction tells held-out images apart, the most reliable first."""
    scores = model.findings.attribute_directions
    known = [name for name in model.attributes if scores.get(name, 0) >= RELIABLE]
    return sorted(known, key=lambda name: -scores[name])


def direction_labels(model: LadderModel, layer: int) -> list[str]:
    """Labels of a layer's sliders: 'layer 3 · 1: turn (yaw)'."""
    names = model.findings.layers[layer].directions if model.findings.layers else ()
    count = min(DIRECTIONS, len(model.latents[layer].directions))
    labels = [PLAIN_WORDS.get(name, name) for name in [*names, *[""] * count][:count]]
    return [f"layer {layer} · {i + 1}{': ' + label if label else ''}" for i, label in enumerate(labels)]


def edit_face(
    model: LadderModel,
    face: Face,
    strengths: Sequence[float],
    moves: Sequence[Sequence[float]],
    attributes: Mapping[str, float],
) -> Face:
    """Moves a face.

    Args:
        model: Gives directions.
        face: Before.
        strengths: Of each layer: 1 = as it is, 0 = the layer's mean, 2 = twice as far from the mean.
        moves: For each layer, steps of one standard deviation along its first directions.
        attributes: Steps along attributes' directions; 1 = the mean difference with and without.
    """
    codes = []
    for z, strength, steps, latents in zip(face, strengths, moves, model.latents, strict=True):
        moved = torch.tensor([*steps], dtype=torch.float32) @ latents.directions[: len(steps)]
        codes.append(latents.mean + strength * (z - latents.mean) + moved)
    for name, amount in attributes.items():
        codes = [z + amount * d.cpu() for z, d in zip(codes, model.directions(name), strict=True)]
    return codes


def interpolation_gif(model: LadderModel, a: Face, b: Face, layers: Sequence[int] | None) -> bytes:
    """The way from one face to another and back."""
    return gif_bytes(model.interpolate(a, b, FRAMES, layers, "torch").cpu())


def picture_tag(images: Tensor, caption: str, side: int) -> str:
    """An HTML figure of (1, C, H, W) in [−1, 1], embedded: nothing is written to a disk."""
    picture = Image.fromarray(to_rgb(images[:1])[0]).resize((side, side), Image.Resampling.BICUBIC)
    return f"<figure>{image_tag(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def image_tag(picture: Image.Image, alt: str) -> str:
    """An HTML image of a picture, embedded as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{_base64(buffer.getvalue())}">'


def gif_tag(content: bytes) -> str:
    """An HTML image of a GIF with a link to download it."""
    source = f"data:image/gif;base64,{_base64(content)}"
    return (
        f'<img alt="interpolation" src="{source}"><br>'
        f'<a id="gif-link" download="interpolation.gif" href="{source}">Download interpolation.gif</a>'
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
