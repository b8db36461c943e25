"""Pictures in the forms that people have them in, as inputs of a model, and back.

Letters in shapes: n images, C channels, H W the model's height and width, h w any height and width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from analysis.inputs.image_files import Align, prepare_photo, read_photo
from pipeline.model.pixels import from_array, to_float, to_rgb
from pipeline.model.pretrained_schema import ImageProcessing
from preprocess.errors import UserError

Output = Literal["pil", "numpy", "torch"]


class ImageError(UserError):
    """Something that cannot be taken as images; the message says what is expected."""


def to_batch(images: Any, processing: ImageProcessing, align: Align = "auto") -> tuple[Tensor, list[str]]:
    """Converts pictures to the model's input.

    Args:
        images: A path, a PIL image, a NumPy array uint8 (h, w), (h, w, C) or (n, h, w, C), a tensor uint8 or float
            (C, H, W) or (n, C, H, W), or a list of those. Tensors must have the model's size, floats lie in [−1, 1].
        processing: Crop, resampling and size of the model's images.
        align: Whether to look for a face and turn it upright: "on", "off", or "auto", which does so where the picture
            does not have the composition of the training images.

    Returns:
        (n, C, H, W) float32 in [−1, 1] on the CPU, and sentences that a user should read.

    Raises:
        ImageError: Of another kind, shape or range.
        UserError: A file cannot be read, or no face was found with align="on".
    """
    parts: list[Tensor] = []
    notes: list[str] = []
    for item in images if isinstance(images, list | tuple) else [images]:
        if isinstance(item, Tensor):
            parts.append(_from_tensor(item, processing))
            continue
        for picture in item if isinstance(item, np.ndarray) and item.ndim == 4 else [item]:
            name = str(picture) if isinstance(picture, str | Path) else "the picture"
            photo = prepare_photo(_pixels(picture), processing, align, name)
            parts.append(from_array(photo.pixels[None]))
            notes += photo.notes
    if not parts:
        raise ImageError("no images were given")
    return torch.cat(parts), notes


def to_output(images: Tensor, output: Output) -> Any:
    """Converts the model's output.

    Args:
        images: (n, C, H, W) in [−1, 1], C = 1 or 3.
        output: "pil" gives a list of images, "numpy" uint8 (n, H, W, 3), "torch" the tensor as it is.

    Raises:
        ImageError: When ``output`` is none of these.
    """
    if output == "torch":
        return images
    if output not in ("pil", "numpy"):
        raise ImageError(f"output={output!r} is not 'pil', 'numpy' or 'torch'")
    pixels = to_rgb(images)
    return pixels if output == "numpy" else [Image.fromarray(picture) for picture in pixels]


def _pixels(picture: Any) -> np.ndarray:
    """uint8 (h, w, 3) of one picture."""
    if isinstance(picture, str | Path):
        return read_photo(Path(picture))
    if isinstance(picture, Image.Image):
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info:
            front = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
        return np.array(upright.convert("RGB"))  # a copy: PIL's own memory cannot be written to
    if not isinstance(picture, np.ndarray):
        raise ImageError(f"{type(picture).__name__} is not an image: give paths, PIL images, NumPy arrays or tensors")
    if picture.dtype != np.uint8:
        raise ImageError(f"NumPy images must be uint8 (0 to 255), these are {picture.dtype}")
    array = picture[..., None] if picture.ndim == 2 else picture
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ImageError(f"NumPy images must be (h, w, C) with 1 or 3 channels, these are {array.shape}")
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")  # a copy that can be written to


def _from_tensor(tensor: Tensor, processing: ImageProcessing) -> Tensor:
    height, width, channels = processing.image_shape
    batch = tensor.detach()[None] if tensor.ndim == 3 else tensor.detach()
    if tuple(batch.shape[1:]) != (channels, height, width):
        raise ImageError(
            f"tensors must be (n, {channels}, {height}, {width}), this one is {tuple(tensor.shape)}; pictures of other "
            "sizes as PIL images or NumPy arrays are cropped and resized"
        )
    if batch.dtype == torch.uint8:
        return to_float(batch.cpu())
    if not batch.is_floating_point():
        raise ImageError(f"tensors must be uint8 or floating point, this one is {tensor.dtype}")
    batch = batch.float().cpu()
    if not batch.isfinite().all() or batch.abs().max() > 1.01:
        raise ImageError("float tensors must lie in [-1, 1]")
    return batch
