"""Image files named on the command line, cropped and resized as the model's training images were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from analysis.inputs.context import EvalContext, EvalContextError
from analysis.inputs.encode import encode
from preprocess.errors import UnreadableImage
from preprocess.images.crop_resize import crop_box, resize_batch
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import Manifest


def read_images(paths: Sequence[Path], manifest: Manifest) -> np.ndarray:
    """uint8 (n, H, W, C) as the manifest's crop and size say.

    An image that is smaller than the crop, or has the shards' size already, is taken from its largest central square.
    Raises EvalContextError naming the file that cannot be read.
    """
    height, width, channels = manifest.image_shape
    images = []
    for path in paths:
        try:
            pixels = Decoder().rgb(path.read_bytes())
        except OSError as error:
            raise EvalContextError(f"cannot read {path}: {error.strerror}") from None
        except UnreadableImage as error:
            raise EvalContextError(f"{path} is not a readable image: {error}") from None
        try:
            top, left, h, w = crop_box(manifest.crop, *pixels.shape[:2])
        except UnreadableImage:
            square = manifest.crop.model_copy(update={"kind": "square"})
            top, left, h, w = crop_box(square, *pixels.shape[:2])
        cut = np.ascontiguousarray(pixels[top : top + h, left : left + w][None])
        small = resize_batch(cut, height, width, manifest.resample)
        images.append(small.mean(axis=3, keepdims=True).round().astype(np.uint8) if channels == 1 else small)
    return np.concatenate(images)


def codes_of_files(context: EvalContext, paths: Sequence[Path]) -> tuple[np.ndarray, list[list[Tensor]]]:
    """The images, uint8 (n, H, W, C), and for each its mean code, (1, d_l) a layer. Raises EvalContextError."""
    images = read_images(paths, context.shards.manifest)
    means = [q.mean for q in encode(context, images, lambda _: None)]
    return images, [[z[row : row + 1] for z in means] for row in range(len(paths))]
