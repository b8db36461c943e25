"""Pictures in the forms that people have them in, as inputs of a model, and back.

Letters in shapes: n images, C channels, H W the model's height and width, h w any height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
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
            (C, H, W) or (n, C, H, W), or a list of those. Float tensors must have the model's size and lie in [−1, 1].
        processing: Crop, resampling and size of the model's images.
        align: Whether to look for a face and turn it upright: "on", "off", or "auto", which does so where the picture
            does not have the composition of the training images.

    Returns:
        (n, C, H, W) float32 in [−1, 1] on the CPU, and a sentence about each picture that a user should know about.

    Raises:
        ImageError: Of another kind, shape or range.
        UserError: A file cannot be read, or no face was found with align="on".
    """
    notes: list[str] = []
    parts = [_convert(item, processing, align, notes) for item in _items(images)]
    if not parts:
        raise ImageError("no images were given")
    return torch.cat(parts), notes


def to_output(images: Tensor, output: Output) -> Any:
    """Converts the model's output: "pil" a list of images, "numpy" uint8 (n, H, W, 3), "torch" as it is."""
    if output == "torch":
        return images
    if output not in ("pil", "numpy"):
        raise ImageError(f"output={output!r} is not 'pil', 'numpy' or 'torch'")
    pixels = to_rgb(images)
    return pixels if output == "numpy" else [Image.fromarray(picture) for picture in pixels]


def _items(images: Any) -> Sequence[Any]:
    if isinstance(images, list | tuple):
        return images
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return [images] if isinstance(images, Tensor) else list(images)
    return [images]


def _convert(item: Any, processing: ImageProcessing, align: Align, notes: list[str]) -> Tensor:
    if isinstance(item, Tensor):
        return _from_tensor(item, processing)
    if isinstance(item, np.ndarray) and item.ndim == 4:
        return torch.cat([_convert(one, processing, align, notes) for one in item])
    if isinstance(item, str | Path):
        pixels = read_photo(Path(item))
    elif isinstance(item, Image.Image):
        pixels = _from_pil(item)
    elif isinstance(item, np.ndarray):
        pixels = _from_numpy(item)
    else:
        raise ImageError(f"{type(item).__name__} is not an image: give paths, PIL images, NumPy arrays or tensors")
    name = str(item) if isinstance(item, str | Path) else "the picture"
    photo = prepare_photo(pixels, processing, align, name)
    notes += photo.notes
    return from_array(photo.pixels[None])


def _from_pil(picture: Image.Image) -> np.ndarray:
    from PIL import ImageOps  # noqa: PLC0415

    upright = ImageOps.exif_transpose(picture)
    if upright.mode in {"RGBA", "LA", "PA"} or "transparency" in upright.info:
        front = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return np.array(upright.convert("RGB"))  # a copy: PIL's own memory cannot be written to


def _from_numpy(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ImageError(f"NumPy images must be uint8 (0 to 255), these are {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ImageError(f"NumPy images must be (h, w, C) with 1 or 3 channels, these are {array.shape}")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


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
