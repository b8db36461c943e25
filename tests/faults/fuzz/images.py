"""Images of every format and mode that photographs come in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.errors import UnreadableImage
from preprocess.images.decode import MAX_PIXELS, Decoder
from tests.faults.fuzz.mutations import mutated
from tests.faults.fuzz.target import Target


def images(_: Path) -> Target:
    """Each is decoded to uint8 (h, w, 3), or refused."""
    seeds = image_seeds()
    decoder = Decoder()

    def read(data: bytes) -> None:
        pixels = decoder.rgb(data)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
        assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, pixels.shape

    return Target(lambda chance: mutated(seeds, chance), read, (UnreadableImage,))


def image_seeds() -> list[bytes]:
    chance = np.random.default_rng(1)
    picture = Image.fromarray(chance.integers(0, 256, (7, 6, 3), np.uint8)).resize((52, 41), Image.Resampling.BICUBIC)
    wide = Image.fromarray(chance.integers(0, 65536, (41, 52)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    made: list[tuple[Image.Image, str, dict[str, object]]] = [
        (picture, "JPEG", {}),
        (picture, "JPEG", {"progressive": True}),
        (picture, "JPEG", {"exif": exif.tobytes()}),
        (picture.convert("L"), "JPEG", {}),
        (picture.convert("CMYK"), "JPEG", {}),
        *((picture.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "RGB", "RGBA", "P")),
        (wide, "PNG", {}),
        (picture.quantize(16), "PNG", {"transparency": 3}),
        (picture, "WEBP", {"lossless": True}),
        (picture.convert("RGBA"), "WEBP", {}),
        (picture.quantize(32), "GIF", {"save_all": True, "append_images": [picture.quantize(8)]}),
        (picture, "BMP", {}),
        (picture.quantize(16), "BMP", {}),
        *((picture, "TIFF", {"compression": how}) for how in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        (wide, "TIFF", {}),
        (picture, "PPM", {}),
        (picture, "JPEG2000", {}),
    ]
    return [_saved(*each) for each in made]


def _saved(picture: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()
