"""What moves: frames along a direction of one layer, and GIFs.

Letters in shapes: n images, b images around which directions are measured, d latent dimensions of a layer, T frames,
C H W image.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analysis.inputs.context import EvalContext
from analysis.inputs.encode import Encoded, decode_codes
from analysis.model.statistics import label_directions, layer_latents
from analysis.probes.dataset import all_targets
from pipeline.model.pixels import to_rgb
from pipeline.model.pretrained_schema import LayerLatents
from pipeline.model.vlae import VLAE

REACH = 3.0  # standard deviations to each side
FRAMES = 13  # of a slider; odd, so that the middle one is the image itself
SECONDS = 2.0  # of a GIF, one way


def moved(code: Sequence[Tensor], layer: int, steps: Tensor) -> list[Tensor]:
    """Adds ``steps`` (T, d) to one layer of an image's code, (1, d_l) a layer: codes (T, d_l)."""
    return [z + steps if i == layer else z.expand(len(steps), -1) for i, z in enumerate(code)]


def effective_directions(
    context: EvalContext, encoded: Encoded, bases: Sequence[Tensor], advance: Callable[[int], None] = lambda _: None
) -> tuple[list[LayerLatents], list[tuple[str, ...]]]:
    """Finds, for each layer, the directions that change the picture most, and what follows them.

    Args:
        context: The checkpoint and its shards.
        encoded: Held-out images.
        bases: Codes around which directions are measured, (b, d_l) a layer, bottom first.
        advance: Called with 1 when another layer is done.

    Returns:
        Latents of each layer, bottom first, and a label for each direction, '' where nothing known follows it.
    """
    latents = layer_latents(context.vlae, encoded.means, bases, advance)
    known = [target for target in all_targets(context, encoded) if target.kind != "label"]
    values = np.stack([target.values for target in known], 1) if known else np.empty((len(encoded), 0))
    return label_directions(latents, encoded.means, [target.name for target in known], values)


def traversal_frames(vlae: VLAE, code: Sequence[Tensor], layer: int, direction: Tensor) -> Tensor:
    """Decodes an image while one layer of its code moves, the others held.

    Args:
        vlae: The model.
        code: Code of the image, (1, d_l) a layer, bottom first.
        layer: The layer that moves.
        direction: (d_l,) on that layer.

    Returns:
        (FRAMES, C, H, W) in [−1, 1], REACH times the direction to each side; the middle one is the image itself.
    """
    return decode_codes(vlae, moved(code, layer, torch.linspace(-REACH, REACH, FRAMES)[:, None] * direction))


def gif_bytes(frames: Tensor, side: int = 256) -> bytes:
    """Encodes frames (T, C, H, W) in [−1, 1], forward and back, as an endless GIF that is ``side`` pixels high."""
    height, width = frames.shape[-2:]
    images = []
    for tile in map(Image.fromarray, to_rgb(frames)):
        # choosing a palette is the slow part: from the small frame, and once for the way there and back
        palette = tile.reduce(max(1, height // 64)).quantize(256)
        enlarged = tile.resize((round(width * side / height), side), Image.Resampling.BICUBIC)
        images.append(enlarged.quantize(palette=palette))
    images += images[-2:0:-1]
    buffer = io.BytesIO()
    milliseconds = max(20, round(1000 * SECONDS / len(frames)))
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
