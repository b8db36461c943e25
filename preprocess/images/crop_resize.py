"""Crop and resize, with the arithmetic of torchvision's CenterCrop and Resize(antialias=True)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from preprocess.choices import Preset, Resample
from preprocess.errors import UnreadableImage, UsageError

CELEBA_SIZE = (218, 178)
"""(H, W) of CelebA's aligned images, in pixels: the frame to which crops of published work refer."""


class Crop(BaseModel):
    """The part of an image that is kept before it is resized.

    kind "center": the central `size` x `size` square; "square": the largest central square;
    "box": (left, top, right, bottom) in pixels; "none": the whole image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["center", "square", "box", "none"]
    size: PositiveInt | None = None
    box: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None

    def __str__(self) -> str:
        """Returns the crop as messages name it, such as `center 148`."""
        return f"{self.kind} {self.size or self.box or ''}".strip()


# Crops of published work on CelebA's images of 178x218, each resized to 64x64 there.
PRESETS: dict[Preset, Crop] = {
    "vlae108": Crop(kind="center", size=108),  # Zhao et al. 2017, the VLAE authors' code
    "dcgan": Crop(kind="center", size=108),  # DCGAN-tensorflow, and much that followed it
    "wae140": Crop(kind="center", size=140),  # Tolstikhin et al. 2018
    "vae148": Crop(kind="center", size=148),  # PyTorch-VAE
    "nvae": Crop(kind="box", box=(15, 40, 163, 188)),  # Vahdat and Kautz 2020
    "provlae": Crop(kind="box", box=(15, 45, 163, 193)),  # Li et al. 2020
}


def choose_crop(crop: str | None, preset: Preset | None, size: tuple[int, int] | None) -> Crop | None:
    """Returns the crop that --crop or --preset asks for; None where neither is given, for the source's default.

    Args:
        crop: the text of --crop, in pixels of the images.
        preset: a part of CelebA's frame, which is scaled where the images show that frame in another size.
        size: (height, width) of most images, if known.

    Raises:
        UsageError: both are given, --crop is not understood, or the images do not show CelebA's frame.
    """
    if preset is None:
        return None if crop is None else parse_crop(crop)
    if crop is not None:
        raise UsageError("--crop and --preset cannot both be given: a preset is a crop")
    if size is not None and not has_celeba_frame(size):
        raise UsageError(
            f"--preset {preset} is a part of CelebA's frame of 178 x 218 pixels, and the images have {size[1]} x "
            f"{size[0]}: give --crop, in their own pixels, or --align"
        )
    return scaled_crop(PRESETS[preset], CELEBA_SIZE, size or CELEBA_SIZE)


def has_celeba_frame(size: tuple[int, int]) -> bool:
    """Whether images of (height, width) can be CelebA's aligned images in some size: whether the aspect ratio fits."""
    return abs(size[1] - CELEBA_SIZE[1] * size[0] / CELEBA_SIZE[0]) <= 1.5  # rounding


def parse_crop(text: str) -> Crop:
    """Parses `148`, `square`, `none` or `left,top,right,bottom`.

    Raises:
        UsageError: When the text is none of them.
    """
    if text in {"square", "none"}:
        return Crop(kind=text)  # pyright: ignore[reportArgumentType]
    match [int(part) if part.isdecimal() else -1 for part in text.split(",")]:
        case [size] if size > 0:
            return Crop(kind="center", size=size)
        case [left, top, right, bottom] if 0 <= left < right and 0 <= top < bottom:
            return Crop(kind="box", box=(left, top, right, bottom))
    raise UsageError(f"--crop {text} is neither a number of pixels, nor left,top,right,bottom, nor square, nor none")


def crop_box(crop: Crop, height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the part to cut out of an image of `height` x `width` pixels: (top, left, height, width).

    Raises:
        UnreadableImage: the image is smaller than the crop; images are never padded.
    """
    if crop.kind == "none":
        return 0, 0, height, width
    if crop.kind == "box":
        left, top, right, bottom = crop.box or (0, 0, width, height)
        if right > width or bottom > height:
            raise UnreadableImage(f"{width} x {height} is smaller than the crop {left},{top},{right},{bottom}")
        return top, left, bottom - top, right - left
    side = min(height, width) if crop.kind == "square" else crop.size or 0
    if side > min(height, width):
        raise UnreadableImage(f"{width} x {height} is smaller than the crop of {side} x {side}")
    # torchvision rounds half to even, so an odd margin of 35 starts at 18 and one of 33 at 16
    return round((height - side) / 2.0), round((width - side) / 2.0), side, side


def scaled_crop(crop: Crop, source_size: tuple[int, int], image_size: tuple[int, int]) -> Crop:
    """Returns the crop that cuts the same part of the frame out of an image of another size.

    A center crop of 148 pixels, meant for CelebA's 178x218, is 74 pixels for an image of 89x109. If the image has
    another aspect ratio, the smaller of its two scales counts: the crop then always fits, and faces stay undistorted.
    A crop without pixels ("square", "none") stays the same.

    Args:
        crop: a crop in pixels of `source_size`.
        source_size: (height, width) of the images that the crop is meant for.
        image_size: (height, width) of the image to be cropped.
    """
    if crop.kind in {"square", "none"} or source_size == image_size:
        return crop
    (source_height, source_width), (image_height, image_width) = source_size, image_size
    scale = min(image_height / source_height, image_width / source_width)
    if crop.kind == "center":
        side = round((crop.size or 0) * scale)
        return Crop(kind="center", size=max(1, min(side, image_height, image_width)))
    left, top, right, bottom = crop.box or (0, 0, source_width, source_height)
    width, height = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    # both sides share what the image has beyond the frame
    x = round((image_width - scale * source_width) / 2 + left * scale)
    y = round((image_height - scale * source_height) / 2 + top * scale)
    x, y = min(max(0, x), max(0, image_width - width)), min(max(0, y), max(0, image_height - height))
    return Crop(kind="box", box=(x, y, x + width, y + height))


def resize_batch(images: np.ndarray, height: int, width: int, resample: Resample = "bilinear") -> np.ndarray:
    """Resizes uint8 (n, h, w, C) to (n, H, W, C), antialiased; returns `images` itself where the size is right already.

    The memory stays channels-last: torch then takes its fast path for bytes, as torchvision does.
    """
    if images.shape[1:3] == (height, width):
        return images
    import torch  # noqa: PLC0415 - takes seconds to import, and only workers resize

    batch = torch.from_numpy(images).permute(0, 3, 1, 2)  # (n, C, h, w) in channels-last memory
    resized = torch.nn.functional.interpolate(
        batch, size=(height, width), mode=resample, antialias=True, align_corners=False
    )
    return resized.permute(0, 2, 3, 1).contiguous().numpy()
