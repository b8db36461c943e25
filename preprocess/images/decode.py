"""Bytes of an image file to RGB pixels, or the reason why not. The type is recognized from the bytes, not the name.

simplejpeg decodes JPEGs in strict mode, which reports truncation and corruption; most decoders fill such places with
gray. Pillow reads all other types, and pillow-heif reads HEIC where it is installed. Each color mode is converted so
that the result looks right to a viewer.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from preprocess.errors import UnreadableImage, first_line
from preprocess.images.file_types import AVIF, HEAD_BYTES, HEIC, file_type

MAX_PIXELS = 50_000_000  # a few kilobytes can claim any size; any format of this size decodes in less than 1 GiB
# formats that need twenty bytes a pixel and more
HUNGRY, HUNGRY_MAX_PIXELS = frozenset({"JPEG2000", "WEBP", "AVIF", "HEIF"}), MAX_PIXELS // 2
MAX_SCANS = 200  # of a JPEG, each a pass over all of it; encoders write up to ten
# EPS is missing because Pillow runs a program for it
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
_JPEG_START, _SCAN = b"\xff\xd8\xff", b"\xff\xda"
_BAND = 256  # rows converted at a time
_JPEG_COLORS = frozenset({"YCbCr", "RGB", "Gray", "GRAY"})  # Pillow reads CMYK
_ORIENTATION = 0x0112  # EXIF tag
_APP1, _METADATA = 0xE1, frozenset({*range(0xE0, 0xF0), 0xFE})  # application segments and comments
_SHRINK = "shrink it first, for example with `magick FILE -resize 50% SMALLER`"


class Decoder:
    """Decodes image files one at a time into one reused buffer, which saves a quarter of the time.

    JPEGs are decoded completely. libjpeg-turbo can leave out the pixels around a crop (`tj3SetCroppingRegion`): with
    CelebA's crop that gives the same pixels in 12 to 17 % less time. But no maintained Python package offers it, and
    damage in the rows below the crop would no longer be found.
    """

    def __init__(self) -> None:
        """Starts with an empty buffer."""
        self._buffer = np.empty(0, np.uint8)

    def rgb(self, data: bytes, reduce: bool = False) -> np.ndarray:
        """Decodes one image file.

        Args:
            data: the content of the file.
            reduce: whether a JPEG of more than `MAX_PIXELS` is decoded at a half, a quarter or an eighth of its width
                and height; otherwise it is refused.

        Returns:
            uint8 (h, w, 3), valid until the next call.

        Raises:
            UnreadableImage: the file is empty, truncated, corrupt, not an image, or has too many pixels.
        """
        if not data:
            raise UnreadableImage("empty file")
        if data.startswith(_JPEG_START):
            try:
                stated_height, stated_width, colors, _ = simplejpeg.decode_jpeg_header(data)
            except ValueError as error:
                raise UnreadableImage(f"damaged JPEG: {first_line(error)}") from None
            height, width = int(stated_height), int(stated_width)
            if data.count(_SCAN) > MAX_SCANS:
                raise UnreadableImage(f"a JPEG of more than {MAX_SCANS} scans")
            # at no extra cost; 1 where even an eighth would be too large
            fitting = (factor for factor in (1, 2, 4, 8) if width * height <= MAX_PIXELS * factor**2)
            reduction = next(fitting, 1) if reduce else 1
            if reduction > 1:
                return _reduced_jpeg(data, height // reduction, width // reduction)
            _refuse_bomb(width, height)
            if colors in _JPEG_COLORS and not _has_exif(data):
                if self._buffer.size < height * width * 3:
                    self._buffer = np.empty(height * width * 3, np.uint8)
                return _decode_jpeg(data, self._buffer)
        return _decode_with_pillow(data)


def _decode_jpeg(data: bytes, buffer: np.ndarray | None = None, min_height: int = 0, min_width: int = 0) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(
            data, colorspace="RGB", strict=True, buffer=buffer, min_height=min_height, min_width=min_width
        )
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UnreadableImage(f"damaged JPEG: {first_line(error)}") from None


def _reduced_jpeg(data: bytes, height: int, width: int) -> np.ndarray:
    """Decodes a large JPEG to about `height` x `width` pixels."""
    pixels = _decode_jpeg(data, min_height=height, min_width=width)
    exif = Image.Exif()
    if _has_exif(data):
        exif.load(data[data.index(b"Exif\0") :])  # Pillow would refuse to open an image of this size
    return _upright(pixels, exif)


def _has_exif(data: bytes) -> bool:
    """Reads the metadata segments at the file's start; searching the whole file would cost five times as much."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1] in _METADATA:
        if data[position + 1] == _APP1 and data.startswith(b"Exif\0", position + 4):
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _decode_with_pillow(data: bytes) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is harmless, and of large images, checked below
            with Image.open(io.BytesIO(data), formats=_readable_formats()) as image:
                _refuse_bomb(*image.size, HUNGRY_MAX_PIXELS if image.format in HUNGRY else MAX_PIXELS)
                if image.format in {"JPEG", "MPO"} and image.mode in {"L", "RGB"}:
                    return _upright(_decode_jpeg(data), image.getexif())
                image.load()
                if image.mode == "I" and image.format != "PPM":  # a PPM's 16 bits are read as 32, and scaled already
                    raise UnreadableImage("32-bit pixels, whose white is not defined")
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb_by_bands(image)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels; {_SHRINK}") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(_unknown_type(data)) from None
    except Exception as error:  # Pillow's readers raise nearly anything on hostile bytes
        raise UnreadableImage(f"damaged image: {first_line(error)}") from None


@functools.cache
def _readable_formats() -> list[str]:
    """Returns the formats that this installation reads."""
    if importlib.util.find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

        register_heif_opener()
    Image.init()  # loads Pillow's readers once: `Image.open` does not do so when it is given formats
    return [name for name in PILLOW_FORMATS if name in Image.OPEN]


def _unknown_type(data: bytes) -> str:
    """Returns what the bytes are, and what the user can do about it."""
    found = file_type(data[:HEAD_BYTES])
    is_read = found in (HEIC, AVIF) and "HEIF" in _readable_formats()
    remedy = "" if is_read or "{path}" in found.remedy else found.remedy
    if found.family == "picture" and not remedy:
        return f"damaged image: {found.name} that cannot be decoded"
    reason = found.name if found.family == "picture" else f"not an image: {found.name}"
    return f"{reason}; {remedy}" if remedy else reason


def _upright(pixels: np.ndarray, exif: Image.Exif) -> np.ndarray:
    """Rotates and mirrors pixels as the orientation in `exif` says."""
    if exif.get(_ORIENTATION, 1) == 1:
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[_ORIENTATION] = exif[_ORIENTATION]
    return np.asarray(ImageOps.exif_transpose(turned))


def _rgb_by_bands(image: Image.Image) -> np.ndarray:
    """Returns uint8 (h, w, 3). Some rows are converted at a time: it takes several times the memory of their pixels."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, image.width, bottom))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB; transparent pixels become white."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels, whose white is not defined")
    if image.mode.startswith("I"):  # 16-bit gray: convert("RGB") would clip everything above 255 to white
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    front = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")


def _refuse_bomb(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    if width * height > limit:
        raise UnreadableImage(f"{width} x {height} is more than {limit:,} pixels; {_SHRINK}")
