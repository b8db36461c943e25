"""Your own photograph as an input of a model: upright, its face in the frame of the training images, resized.

Letters in shapes: H W C the model's height, width and channels, h w any height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.model.pretrained_schema import ImageProcessing
from preprocess.errors import UnreadableImage, UsageError, UserError
from preprocess.images.align import EYES, FRAME, INSTALL, Face, align, find_faces, is_installed
from preprocess.images.crop_resize import Crop, crop_box, resize_batch, scaled_crop
from preprocess.images.decode import Decoder

Align = Literal["auto", "on", "off"]
"""Whether a face is looked for and brought into the frame. "auto": where the picture does not have that frame yet."""

_SAME_ASPECT = 0.02  # relative difference of two aspect ratios that rounding explains
_IN_PLACE = 10.0  # pixels of the frame: eyes of aligned images lie nearer to their mean position than this


@dataclass(frozen=True)
class PreparedPhoto:
    """A picture as the model takes it.

    Attributes:
        pixels: uint8 (H, W, C).
        aligned: uint8 (h, w, 3), the same part of the picture before it was resized, to be shown.
        notes: sentences that the user should read, such as that the largest of several faces was taken.
    """

    pixels: np.ndarray
    aligned: np.ndarray
    notes: tuple[str, ...] = ()


def read_photo(path: Path) -> np.ndarray:
    """Reads an image file.

    Returns:
        uint8 (h, w, 3), turned upright as EXIF says.

    Raises:
        UserError: the file cannot be read, or is not an image; the message names it.
    """
    try:
        return Decoder().rgb(path.read_bytes(), reduce=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnreadableImage as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def prepare_photo(
    pixels: np.ndarray, processing: ImageProcessing, alignment: Align = "auto", name: str = "the picture"
) -> PreparedPhoto:
    """Cuts out of a picture what the model's training images show, and resizes it.

    The crop of the training images is scaled to the picture. With "auto", the face is aligned first, unless the picture
    has the training images' composition already: their aspect ratio, and the eyes where theirs are. A picture that has
    the model's size is taken as it is.

    Args:
        pixels: uint8 (h, w, 3), RGB, upright.
        processing: crop, resampling and size of the model's training images.
        alignment: "auto", "on" or "off".
        name: of the picture, for messages.

    Raises:
        UsageError: alignment is "on" where no aligner is installed, or the training images are not in CelebA's frame.
        UserError: no face was found.
    """
    notes: list[str] = []
    if pixels.shape[:2] != processing.image_shape[:2] or alignment == "on":
        pixels = _aligned(pixels, processing, alignment, name, notes)
        pixels = _cropped(pixels, processing)
    height, width, channels = processing.image_shape
    small = resize_batch(np.ascontiguousarray(pixels[None]), height, width, processing.resample)[0]
    if channels == 1:
        small = small.mean(axis=2, keepdims=True).round().astype(np.uint8)
    return PreparedPhoto(small, pixels, tuple(notes))


def source_size(processing: ImageProcessing) -> tuple[int, int] | None:
    """Returns (h, w) of the images that the crop was made for, None where they differed in size.

    Checkpoints of version 0.1 do not tell. A crop in pixels that fits into CelebA's images was made for them.
    """
    crop = processing.crop
    if processing.source_size is None and crop.kind in {"center", "box"}:
        right, bottom = crop.box[2:] if crop.box else (crop.size or 0, crop.size or 0)
        return FRAME if bottom <= FRAME[0] and right <= FRAME[1] else None
    return processing.source_size


def _aligned(
    pixels: np.ndarray, processing: ImageProcessing, alignment: Align, name: str, notes: list[str]
) -> np.ndarray:
    """The picture, or its face in the frame; adds to `notes`."""
    size = source_size(processing)
    framed = size is not None and _same_aspect(size, FRAME)
    if alignment == "on" and not framed:
        raise UsageError(
            "--align on needs a model that was trained on images in CelebA's frame (178x218, or aligned by "
            "preprocess), and this one was not: use --align off"
        )
    if alignment == "off" or not framed:
        return pixels
    composed = _same_aspect(pixels.shape[:2], FRAME)
    if alignment == "auto" and not is_installed():
        if not composed:
            notes.append(f"{name}: cropped at its center, since no face detector is installed ({INSTALL})")
        return pixels
    faces = find_faces(pixels)
    if not faces:
        if alignment == "auto" and composed:
            notes.append(f"{name}: no face was found, so it was cropped at its center")
            return pixels
        raise UserError(f"{name}: no face was found; --align off takes its center")
    if alignment == "auto" and composed and _in_place(faces[0], pixels.shape[:2]):
        return pixels
    if len(faces) > 1:
        notes.append(f"{name}: {len(faces)} faces were found; the largest was taken")
    return align(pixels, faces[0])


def _cropped(pixels: np.ndarray, processing: ImageProcessing) -> np.ndarray:
    """The part of the picture that the crop of the training images, scaled to it, keeps."""
    size, shape = source_size(processing), (pixels.shape[0], pixels.shape[1])
    crop = processing.crop if size is None else scaled_crop(processing.crop, size, shape)
    try:
        top, left, height, width = crop_box(crop, *shape)
    except UnreadableImage:  # smaller than a crop of unknown scale
        top, left, height, width = crop_box(Crop(kind="square"), *shape)
    return pixels[top : top + height, left : left + width]


def _same_aspect(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return abs(a[0] * b[1] / (a[1] * b[0]) - 1) < _SAME_ASPECT


def _in_place(face: Face, shape: tuple[int, ...]) -> bool:
    """Whether the eyes lie where they do in aligned images, if the whole picture is taken for the frame."""
    eyes = face.eyes * (FRAME[1] / shape[1], FRAME[0] / shape[0])
    return bool(np.linalg.norm(eyes - EYES, axis=1).max() < _IN_PLACE)
