"""One photograph as the model's training images were cropped. (Replaced by analysis/inputs/image_files.py.)"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.model.pretrained_schema import ImageProcessing
from preprocess.errors import UnreadableImage, UserError
from preprocess.images.crop_resize import crop_box, resize_batch
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import Crop

Align = Literal["auto", "on", "off"]


class Photo(NamedTuple):
    pixels: np.ndarray
    notes: list[str]


def read_photo(path: Path) -> np.ndarray:
    try:
        return Decoder().rgb(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnreadableImage as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def prepare_photo(pixels: np.ndarray, processing: ImageProcessing, align: Align = "auto") -> Photo:
    height, width, channels = processing.image_shape
    if pixels.shape[:2] != (height, width):
        try:
            top, left, h, w = crop_box(processing.crop, *pixels.shape[:2])
        except UnreadableImage:
            top, left, h, w = crop_box(Crop(kind="square"), *pixels.shape[:2])
        pixels = resize_batch(np.ascontiguousarray(pixels[top : top + h, left : left + w][None]), height, width)[0]
    if channels == 1:
        pixels = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
    return Photo(pixels, [])
