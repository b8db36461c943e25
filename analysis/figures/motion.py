"""What moves: frames along a direction of one layer, and GIFs.

Letters in shapes: n images, d latent dimensions of a layer, k directions, T frames, C H W image.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode_codes
from analysis.model.statistics import label_directions, principal_directions
from analysis.probes.dataset import all_targets
from pipeline.model.pixels import to_rgb
from pipeline.model.vlae import VLAE

REACH = 3.0  # standard deviations to each side
FRAMES = 13  # of a slider; odd, so that the middle one is the image itself
BASES = 4  # images around which directions are measured


@torch.inference_mode()
def moved(code: Sequence[Tensor], layer: int, steps: Tensor) -> list[Tensor]:
    """Adds ``steps`` (T, d) to one layer of an image's code, (1, d_l) a layer: codes (T, d_l)."""
    return [z + steps if i == layer else z.expand(len(steps), -1) for i, z in enumerate(code)]


@dataclass(frozen=True)
class LayerDirections:
    """The directions of one layer that change the picture most."""

    steps: Tensor
    """(k, d), each one standard deviation long; the most effective comes first."""
    labels: tuple[str, ...]
    """k names of what follows the position along each; '' where nothing known does."""


def effective_directions(context: EvalContext, encoded: Encoded) -> list[LayerDirections]:
    """Finds, for each layer, bottom first, the directions that change the picture most, and what follows them."""
    known = [target for target in all_targets(context, encoded) if target.kind != "label"]
    values = np.stack([target.values for target in known], 1) if known else np.empty((len(encoded), 0))
    bases = [z[:BASES] for z in encoded.means]
    latents = [
        principal_directions(context.vlae, layer, bases, z.mean(0), _covariance(z))
        for layer, z in enumerate(encoded.means)
    ]
    turned, labels = label_directions(latents, encoded.means, [target.name for target in known], values)
    return [LayerDirections(layer.directions, names) for layer, names in zip(turned, labels, strict=True)]


def _covariance(z: Tensor) -> Tensor:
    """Covariance (d, d) of (n, d)."""
    centered = z - z.mean(0)
    return centered.T @ centered / max(1, len(z) - 1)


def traversal_frames(
    vlae: VLAE, code: Sequence[Tensor], layer: int, direction: Tensor, reach: float = REACH, count: int = FRAMES
) -> Tensor:
    """Decodes one image while a layer moves along a direction.

    Args:
        vlae: The model.
        code: Code of the image, (1, d_l) a layer, bottom first.
        layer: The layer that moves; the others are held.
        direction: (d_l,) on that layer.
        reach: How far to each side, in lengths of ``direction``.
        count: Frames T; where it is odd, the middle one is the image itself.

    Returns:
        (T, C, H, W) in [−1, 1].
    """
    return decode_codes(vlae, moved(code, layer, torch.linspace(-reach, reach, count)[:, None] * direction))


def gif_bytes(frames: Tensor, seconds: float = 2.0, side: int = 256, there_and_back: bool = True) -> bytes:
    """Encodes frames as an endless GIF.

    Args:
        frames: (T, C, H, W) in [−1, 1].
        seconds: Duration of the way there.
        side: Height of the picture in pixels; smaller frames are enlarged.
        there_and_back: Whether the frames run backward after the last one.
    """
    height, width = frames.shape[-2:]
    size = (round(width * side / height), side)
    tiles = [Image.fromarray(tile) for tile in to_rgb(frames)]
    # choosing a palette is the slow part: from the small frame, and once for the way there and back
    palettes = [tile.reduce(max(1, height // 64)).quantize(256) for tile in tiles]
    images = [
        tile.resize(size, Image.Resampling.BICUBIC).quantize(palette=palette)
        for tile, palette in zip(tiles, palettes, strict=True)
    ]
    if there_and_back:
        images += images[-2:0:-1]
    buffer = io.BytesIO()
    milliseconds = max(20, round(1000 * seconds / len(frames)))
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
