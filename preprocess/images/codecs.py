"""Samples as compressed images, for shards that are streamed: smaller than npy, and not mappable."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

from preprocess.shards.manifest import Codec
from preprocess.shards.tar_layout import JSON_MEMBER, blocks, member_header

JPEG_QUALITY = 95  # with full color resolution: 1.2/255 lost on average


class EncodedWriter:
    """Lays out `KEY.png|jpg|webp` and `KEY.json`; samples take as many bytes as they need."""

    def __init__(self, codec: Codec) -> None:
        self._codec: Codec = codec

    def records(self, keys: Sequence[str], images: np.ndarray, texts: Sequence[bytes]) -> bytes:
        """The records of one batch.

        Args:
            keys: n sample keys.
            images: uint8 (n, H, W, C).
            texts: n JSON texts.
        """
        parts = []
        for key, image, text in zip(keys, images, texts, strict=True):
            parts += _member(f"{key}.{self._codec}", encode(image, self._codec))
            parts += _member(key + JSON_MEMBER, text)
        return b"".join(parts)


def encode(image: np.ndarray, codec: Codec) -> bytes:
    """Encodes uint8 (H, W, 1 or 3); png and webp are lossless."""
    gray = image.shape[2] == 1
    if codec == "jpg":
        kind, subsampling = ("GRAY", "Gray") if gray else ("RGB", "444")
        contiguous = np.ascontiguousarray(image)
        return simplejpeg.encode_jpeg(contiguous, JPEG_QUALITY, colorspace=kind, colorsubsampling=subsampling)
    out = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if gray else image)
    if codec == "png":
        picture.save(out, "PNG", compress_level=4)  # level 6 saves 1 % more and takes half as long again
    elif codec == "webp":
        picture.save(out, "WEBP", lossless=True, method=0, quality=20)
    else:
        raise ValueError(f"{codec} is not an image codec")
    return out.getvalue()


def _member(name: str, body: bytes) -> tuple[bytes, bytes]:
    return member_header(name.encode(), len(body)), body.ljust(blocks(len(body)), b"\0")
