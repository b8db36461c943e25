"""One shard read as a stream: blocks of images in record order, checked as they pass.

npy shards need no tar reader: their records are equally long, so a block of them is an array. Compressed shards go
through the strict reader of preprocess, and each image through its decoder. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from pipeline.data.mapped import LoaderError
from pipeline.data.shard_source import ShardSource, why
from preprocess.errors import UnreadableImage
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import Manifest, Shard
from preprocess.shards.tar import TarDamage, read_members
from preprocess.shards.tar_layout import are_records

RECORDS = 256  # read at a time


class _Checked:
    """A stream that counts and hashes what is read from it."""

    def __init__(self, stream: IO[bytes], hashed: bool) -> None:
        self._stream, self._digest, self.count = stream, hashlib.sha256() if hashed else None, 0

    def read(self, size: int = -1) -> bytes:
        parts, left = [], size
        while left:  # a pipe gives what it has; tar records must come whole
            part = self._stream.read(left) if size >= 0 else self._stream.read()
            if not part:
                break
            parts.append(part)
            left -= len(part) if size >= 0 else 0
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.count += len(data)
        if self._digest is not None:
            self._digest.update(data)
        return data

    def is_whole(self, shard: Shard) -> bool:
        """Reads what is left, and says whether the shard was the manifest's."""
        while self.read(1 << 20):
            pass
        return self.count == shard.bytes and (self._digest is None or self._digest.hexdigest() == shard.sha256)


def stream_shard(source: ShardSource, shard: Shard, skip: int, hashed: bool) -> Iterator[np.ndarray]:
    """The shard's images from record ``skip`` on: uint8 (k, H, W, C) blocks, k from 1 to 256.

    With ``hashed`` the content is compared with the manifest's SHA-256 when the end has been read; otherwise only its
    length and structure are. Raises LoaderError naming the shard when it is damaged, cut or cannot be read.
    """
    where = f"{shard.file} of {source.address}"
    count = 0
    try:
        with source.open(shard.file) as raw:
            stream = _Checked(raw, hashed)
            blocks = _array_blocks if source.manifest.layout else _decoded_blocks
            for block in blocks(stream, source.manifest, shard, where):
                first, count = count, count + len(block)
                if count > skip:
                    yield block[max(0, skip - first) :]
            whole = stream.is_whole(shard)
    except TarDamage as error:
        raise LoaderError(f"{where} is damaged: {error}") from None
    except (OSError, ValueError) as error:
        raise LoaderError(f"reading {where} failed: {why(error)}") from None
    if not whole or count != shard.samples:
        raise LoaderError(
            f"{where} is damaged: it is not what the manifest says; run `preprocess verify` where it lies"
        )


def _array_blocks(stream: _Checked, manifest: Manifest, shard: Shard, where: str) -> Iterator[np.ndarray]:
    """Blocks of an npy shard: views of the bytes read."""
    layout = manifest.layout
    assert layout is not None
    for first in range(0, shard.samples, RECORDS):
        count = min(RECORDS, shard.samples - first)
        data = stream.read(count * layout.record_bytes)
        if len(data) != count * layout.record_bytes:
            raise LoaderError(
                f"{where} is damaged: it ends within its sample {first + len(data) // layout.record_bytes}"
            )
        records = np.frombuffer(data, np.uint8).reshape(count, layout.record_bytes)
        if not are_records(records, layout, manifest.image_shape):
            raise LoaderError(f"{where} is damaged: one of its samples {first} to {first + count - 1} is no image")
        pixels = records[:, layout.image_offset : layout.image_offset + layout.image_bytes]
        yield pixels.reshape(count, *manifest.image_shape)


def _decoded_blocks(stream: _Checked, manifest: Manifest, shard: Shard, where: str) -> Iterator[np.ndarray]:
    """Blocks of one image each of a shard of compressed members."""
    decoder, suffix = Decoder(), f".{manifest.codec}"
    channels = manifest.image_shape[2]
    for name, content in read_members(stream, suffix):
        if not name.endswith(suffix):
            continue
        try:
            image = decoder.rgb(content)[..., :channels]
        except UnreadableImage as error:
            raise LoaderError(f"{where} is damaged: an image cannot be decoded ({error})") from None
        if image.shape != manifest.image_shape:
            raise LoaderError(f"{where} holds an image of another size than its manifest says")
        yield image[None].copy()  # the decoder uses its buffer again
