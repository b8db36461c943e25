"""What the page shows, computed from codes: no page and no state in here.

A face is a list of L float lists, one for each layer, bottom first: plain values that a browser session can keep.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from analysis.figures.grids import layer_swap_picture
from analysis.figures.motion import gif_bytes
from analysis.model.arithmetic import add_codes
from analysis.model.images import to_batch
from analysis.model.ladder import LadderModel
from pipeline.model.pixels import from_array, to_rgb

Face = list[list[float]]

RELIABLE = 0.7  # AUC with which an attribute's direction tells held-out images apart, or it gets no slider
DIRECTIONS = 5  # sliders for each layer
FRAMES = 24
PLAIN_WORDS = {"yaw": "turn (yaw)", "pitch": "nod (pitch)", "roll": "tilt (roll)", "male": "man or woman"}


def as_face(codes: Sequence[Tensor]) -> Face:
    """One code, (1, d_l) for each layer, as plain values."""
    return [z[0].tolist() for z in codes]


def as_codes(face: Face) -> list[Tensor]:
    """A face as tensors (1, d_l)."""
    return [torch.tensor([layer], dtype=torch.float32) for layer in face]


def stored_faces(model: LadderModel) -> list[Face]:
    """The held-out images that came with the model, encoded."""
    if model.faces is None:
        return []
    codes = [z.tolist() for z in model.encode(from_array(model.faces))]
    return [list(face) for face in zip(*codes, strict=True)]


def uploaded_face(model: LadderModel, path: Path, align: Any) -> tuple[Face, Tensor, list[str]]:
    """A picture file: its code, the aligned crop (1, C, H, W), and sentences about it. Raises UserError."""
    image, notes = to_batch(path, model.image_processing, align)
    return as_face(model.encode(image)), image, notes


def prior_face(model: LadderModel, seed: int) -> Face:
    """A face of nobody."""
    return as_face(model.prior(1, seed))


def redraw_layer(model: LadderModel, face: Face, layer: int, seed: int) -> Face:
    """The face with one layer drawn from the prior."""
    drawn = as_face(model.prior(1, seed))
    return [drawn[i] if i == layer else values for i, values in enumerate(face)]


def reliable_attributes(model: LadderModel) -> list[str]:
    """Attributes whose direction tells held-out images apart, the most reliable first."""
    scores = model.findings.attribute_directions
    known = [name for name in model.attributes if scores.get(name, 0) >= RELIABLE]
    return sorted(known, key=lambda name: -scores[name])


def direction_labels(model: LadderModel, layer: int) -> list[str]:
    """Labels of a layer's sliders: 'layer 3 · 1: turn (yaw)'."""
    names = model.findings.layers[layer].directions if model.findings.layers else ()
    count = min(DIRECTIONS, len(model.latents[layer].directions))
    labels = [names[i] if i < len(names) else "" for i in range(count)]
    plain = (PLAIN_WORDS.get(label, label) for label in labels)
    return [f"layer {layer} · {i + 1}{': ' + label if label else ''}" for i, label in enumerate(plain)]


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
    for layer, (values, latents) in enumerate(zip(face, model.latents, strict=True)):
        z = latents.mean + strengths[layer] * (torch.tensor(values, dtype=torch.float32) - latents.mean)
        steps = torch.tensor(list(moves[layer]), dtype=torch.float32)
        codes.append(z + steps @ latents.directions[: len(steps)])
    for name, amount in attributes.items():
        if amount:
            codes = [z + amount * d[0].cpu() for z, d in zip(codes, model.directions(name), strict=True)]
    return [z.tolist() for z in codes]


def decode_face(model: LadderModel, face: Face) -> Tensor:
    """(1, C, H, W) in [−1, 1] on the CPU."""
    return model.decode(as_codes(face), "torch").cpu()


def swap_faces(a: Face, b: Face, layers: Sequence[int]) -> Face:
    """``a`` with some layers of ``b``."""
    return [b[layer] if layer in layers else a[layer] for layer in range(len(a))]


def add_faces(a: Face, b: Face, c: Face) -> Face:
    """a − b + c on every layer, as the Python API computes it."""
    return as_face(add_codes(as_codes(a), as_codes(b), as_codes(c)))


def swap_grid(model: LadderModel, face: Face, others: Sequence[Face]) -> Image.Image:
    """The face with each layer of other faces."""
    codes = [torch.cat(layer) for layer in zip(*(as_codes(other) for other in others), strict=True)]
    return layer_swap_picture(model.vlae, as_codes(face), codes, cell=80)


def interpolation_gif(model: LadderModel, a: Face, b: Face, layers: Sequence[int] | None) -> bytes:
    """The way from one face to another and back."""
    return gif_bytes(model.interpolate(as_codes(a), as_codes(b), FRAMES, layers, "torch").cpu())


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
