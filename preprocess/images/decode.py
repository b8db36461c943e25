"""Bytes of an image file to RGB pixels, or the reason why not.

JPEGs go through simplejpeg in strict mode, which reports truncation and corruption that most decoders paint
over in gray. All else goes through Pillow, each mode converted so that a person would call the result right.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from preprocess.errors import UnreadableImage

MAX_PIXELS = 50_000_000  # a few kilobytes can claim to be any size; any format of this size decodes in below 1 GiB
# twenty bytes a pixel and more
HUNGRY, HUNGRY_MAX_PIXELS = frozenset({"JPEG2000", "WEBP", "AVIF"}), MAX_PIXELS // 2
MAX_SCANS = 200  # of a JPEG, each a pass over all of it; encoders write up to ten
# no EPS: it runs a program
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
_JPEG_START, _SCAN = b"\xff\xd8\xff", b"\xff\xda"
_BAND = 256  # rows converted at a time
_JPEG_COLOURS = frozenset({"YCbCr", "RGB", "Gray", "GRAY"})  # CMYK is Pillow's business
_APP1, _METADATA = 0xE1, frozenset({*range(0xE0, 0xF0), 0xFE})  # application segments and comments


class Decoder:
    """Decodes image files one after the other into one reused buffer, which saves a quarter of the time."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def rgb(self, data: bytes) -> np.ndarray:
        """Decodes one image file to uint8 (h, w, 3); the array is valid until the next call.

        Raises:
            UnreadableImage: with the reason: empty, truncated, corrupt, not an image, too many pixels.
        """
        if not data:
            raise UnreadableImage("empty file")
        if data.startswith(_JPEG_START):
            try:
                height, width, colors = _jpeg_header(data)
            except ValueError as error:
                raise UnreadableImage(f"damaged JPEG: {_one_line(error)}") from None
            _refuse_bomb(width, height)
            if data.count(_SCAN) > MAX_SCANS:
                raise UnreadableImage(f"a JPEG of more than {MAX_SCANS} scans")
            if colors in _JPEG_COLOURS and not _has_exif(data):
                return self._jpeg(data, height * width * 3)
        return _decode_with_pillow(data)

    def _jpeg(self, data: bytes, size: int) -> np.ndarray:
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        return _decode_jpeg(data, self._buffer)


def _jpeg_header(data: bytes) -> tuple[int, int, str]:
    height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    return int(height), int(width), str(colors)


def _decode_jpeg(data: bytes, buffer: np.ndarray | None = None) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, buffer=buffer)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UnreadableImage(f"damaged JPEG: {_one_line(error)}") from None


def _has_exif(data: bytes) -> bool:
    """Walks the metadata segments at the file's start; searching the whole file would cost five times as much."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1] in _METADATA:
        if data[position + 1] == _APP1 and data.startswith(b"Exif\0", position + 4):
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _decode_with_pillow(data: bytes) -> np.ndarray:
    Image.init()  # loads the readers once; with `formats` Pillow would not look for them itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata and bombs: the first is harmless, the second checked
            formats = [name for name in PILLOW_FORMATS if name in Image.OPEN]  # Pillow may be built without some
            with Image.open(io.BytesIO(data), formats=formats) as image:
                _refuse_bomb(*image.size, HUNGRY_MAX_PIXELS if image.format in HUNGRY else MAX_PIXELS)
                if image.format in {"JPEG", "MPO"} and image.mode in {"L", "RGB"}:
                    return _upright(_decode_jpeg(data), image)
                image.load()
                if image.mode == "I" and image.format != "PPM":  # a PPM's 16 bits are read as 32, and scaled already
                    raise UnreadableImage("32-bit pixels, whose white is not defined")
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb_by_bands(image)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(f"not an image ({_looks_like(data)})") from None
    except Exception as error:  # Pillow's readers raise nearly anything on hostile bytes
        raise UnreadableImage(f"damaged image: {_one_line(error)}") from None


def _upright(pixels: np.ndarray, opened: Image.Image) -> np.ndarray:
    """Turns pixels as the EXIF orientation of `opened` says."""
    if opened.getexif().get(0x0112, 1) == 1:
        return pixels
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = opened.getexif()[0x0112]
    return np.asarray(ImageOps.exif_transpose(turned))


def _rgb_by_bands(image: Image.Image) -> np.ndarray:
    """uint8 (h, w, 3), converted some rows at a time: a conversion takes several times the memory of its pixels."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, image.width, bottom))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB; transparency is laid over white."""
    if image.mode.startswith("I"):  # 16-bit gray: convert("RGB") would clip everything above 255 to white
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise UnreadableImage("floating-point pixels, whose white is not defined")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        front = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
    return image.convert("RGB")


def _refuse_bomb(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    if width * height > limit:
        raise UnreadableImage(f"{width} x {height} is more than {limit:,} pixels")


def _looks_like(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "a web page"
    return "text" if start.isascii() and b"\0" not in start else "unknown bytes"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
