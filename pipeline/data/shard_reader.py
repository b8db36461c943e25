"""Where shards come from, and one shard read as a stream: blocks of images in record order, checked as they pass.

npy shards need no tar reader: their records are equally long, so a block of them is an array. Compressed shards go
through the strict reader of preprocess, and each image through its decoder. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batch import LoaderError
from pipeline.data.remote_file import RemoteFile, reason
from preprocess.errors import UnreadableImage
from preprocess.images.decode import Decoder
from preprocess.shards.atomic import replace_file, write_file
from preprocess.shards.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard
from preprocess.shards.reader import ShardSet
from preprocess.shards.tar import TarDamage, are_records, read_members
from preprocess.shards.verify import damage_reason

RECORDS = 256
"""Records read at a time."""
_DIFFERS = "it differs from the manifest; run `preprocess verify` where it lies"


def is_address(path: str) -> bool:
    """Whether ``path`` names something else than a folder of this machine."""
    return re.match("[a-z][a-z0-9+]+:", path, re.IGNORECASE) is not None and not Path(path).exists()


@dataclass(frozen=True)
class ShardSource:
    """A finished set of shards in a folder or behind an address."""

    address: str
    manifest: Manifest
    digest: str
    local: ShardSet | None
    """None where the shards can only be streamed."""
    hashed: bool = False
    """Whether the content is compared with the manifest's SHA-256 as it is streamed, or only length and structure."""
    left_out: tuple[str, ...] = ()
    """Damaged shards that are not used. ``manifest`` no longer names them; ``digest`` is still of the whole set."""

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of a split, in order; none where there is no such split."""
        found = self.manifest.splits.get(split)  # type: ignore[call-overload]
        return found.shards if found else ()

    def split_bytes(self, split: str) -> int:
        """Returns the bytes of a split's pixels."""
        height, width, channels = self.manifest.image_shape
        return sum(shard.samples for shard in self.shards(split)) * height * width * channels

    def open(self, file: str) -> RemoteFile | IO[bytes]:
        """Opens one file of the set at its start.

        Raises:
            LoaderError: When that fails.
        """
        if is_address(self.address):
            return RemoteFile(self.address, file)
        try:
            return (Path(self.address) / file).open("rb")
        except OSError as error:
            raise LoaderError(f"cannot open {file} of {self.address}: {reason(error)}") from None


def open_source(path: str, allow_pipe: bool) -> ShardSource:
    """Reads the manifest of a set of shards.

    Args:
        path: A folder, or an address (see ``remote_file``).
        allow_pipe: Whether the address may be a command. Otherwise whoever writes a recipe could run programs here.

    Raises:
        ManifestError: When there is no usable manifest.
        LoaderError: When the address cannot be read, or is a command and ``allow_pipe`` is not given.
    """
    if not is_address(path):
        shards = ShardSet.open(path)
        return ShardSource(str(shards.folder.resolve()), shards.manifest, shards.digest, shards)
    if path.startswith("pipe:"):
        if not allow_pipe:
            raise LoaderError(f"'{path}' would run a program on this machine; add --allow-pipe if you trust it")
        if "{}" not in path:
            raise LoaderError(
                f"'{path}' must say with {{}} where the file's name goes, such as pipe:ssh host cat /data/{{}}"
            )
    with RemoteFile(path, MANIFEST_NAME) as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    if content.lstrip()[:1] == b"<":
        raise LoaderError(f"{MANIFEST_NAME} of {path} is a web page: check the address, or whether it asks to sign in")
    manifest = Manifest.parse(content, f"{MANIFEST_NAME} of {path}")
    return ShardSource(path, manifest, manifest.digest(), None, hashed=True)


class _Checked:
    """A stream that counts and hashes the bytes that are read from it."""

    def __init__(self, stream: RemoteFile | IO[bytes], hashed: bool) -> None:
        self._stream, self._digest, self.count = stream, hashlib.sha256() if hashed else None, 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        if self._digest is not None:
            self._digest.update(data)
        return data

    def is_whole(self, shard: Shard) -> bool:
        """Reads the rest, and returns whether the bytes were those of the manifest's shard."""
        while self.read(1 << 20):
            pass
        return self.count == shard.bytes and (self._digest is None or self._digest.hexdigest() == shard.sha256)


def stream_shard(source: ShardSource, shard: Shard, skip: int = 0) -> Iterator[np.ndarray]:
    """Yields the shard's images from record ``skip`` on: (k, H, W, C) uint8 blocks, k from 1 to 256.

    Raises:
        LoaderError: When the shard is damaged, too short or cannot be read; the message names it.
    """
    name, count = f"{shard.file} of {source.address}", 0
    blocks = _array_blocks if source.manifest.layout else _decoded_blocks
    try:
        with source.open(shard.file) as raw:
            stream = _Checked(raw, source.hashed)
            for block in blocks(stream, source.manifest, shard.samples):
                first, count = count, count + len(block)
                if count > skip:
                    yield block[max(0, skip - first) :]
            if not stream.is_whole(shard) or count != shard.samples:
                raise TarDamage(_DIFFERS)
    except TarDamage as error:
        raise LoaderError(f"{name} is damaged: {error}") from None
    except (OSError, ValueError) as error:
        raise LoaderError(f"reading {name} failed: {reason(error)}") from None


def _array_blocks(stream: _Checked, manifest: Manifest, samples: int) -> Iterator[np.ndarray]:
    """Yields blocks of an npy shard: views of the bytes read."""
    layout = manifest.layout
    assert layout is not None
    for first in range(0, samples, RECORDS):
        count = min(RECORDS, samples - first)
        data = stream.read(count * layout.record_bytes)
        if len(data) != count * layout.record_bytes:
            raise TarDamage(f"it ends within its sample {first + len(data) // layout.record_bytes}")
        records = np.frombuffer(data, np.uint8).reshape(count, layout.record_bytes)
        if not are_records(records, layout, manifest.image_shape):
            raise TarDamage(f"one of its samples {first} to {first + count - 1} is not an image")
        pixels = records[:, layout.image_offset : layout.image_offset + layout.image_bytes]
        yield pixels.reshape(count, *manifest.image_shape)


def _decoded_blocks(stream: _Checked, manifest: Manifest, samples: int) -> Iterator[np.ndarray]:
    """Yields blocks of one image each of a shard of compressed members."""
    decoder, suffix = Decoder(), manifest.image_suffix
    for member, content in read_members(stream, suffix):
        if not member.endswith(suffix):
            continue
        try:
            image = decoder.rgb(content)[..., : manifest.image_shape[2]]
        except UnreadableImage as error:
            raise TarDamage(f"an image cannot be decoded ({error})") from None
        if image.shape != manifest.image_shape:
            raise TarDamage("it holds an image of another size than its manifest says")
        yield image[None].copy()  # the decoder uses its buffer again


def load_images(source: ShardSource, split: str, limit: int | None = None) -> Tensor:
    """Reads a split (its first ``limit`` images) into memory: (n, H, W, C) uint8.

    Raises:
        LoaderError: When a shard is damaged or cannot be read.
    """
    shards = source.shards(split)
    count = min(sum(shard.samples for shard in shards), sys.maxsize if limit is None else limit)
    images = torch.empty((count, *source.manifest.image_shape), dtype=torch.uint8)
    filled = 0
    for shard in shards:
        if filled == count:
            break
        for block in stream_shard(source, shard):
            end = min(filled + len(block), count)
            images.numpy()[filled:end] = block[: end - filled]
            filled = end
    return images


def open_shard_set(location: str) -> ShardSet:
    """Opens a folder of shards, or copies those behind an address into the user's cache and opens the copies.

    An address that went through ``pathlib`` and lost a slash is repaired. Copies with the manifest's SHA-256 are kept,
    so a repeated call continues where it stopped.

    Raises:
        ManifestError: When there is no usable manifest.
        LoaderError: When the address cannot be read, or is a command.
    """
    address = re.sub(r"^([a-z][a-z0-9+]+):/(?=[^/])", r"\1://", location)
    if Path(location).exists() or not is_address(address):
        return ShardSet.open(location)
    if address.startswith("pipe:"):
        raise LoaderError(f"the shards come from a command ({address}); copy them to a folder and name it with --data")
    source = open_source(address, allow_pipe=False)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mmd-vlae" / "shards" / source.digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    shards = [shard for split in source.manifest.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards)
    print(f"copying {size / 1e6:,.0f} MB of shards from {address} to {folder}, once", file=sys.stderr)
    for shard in shards:
        if not damage_reason(folder, shard):
            continue
        with source.open(shard.file) as raw, replace_file(folder / shard.file) as temporary:
            stream = _Checked(raw, hashed=True)
            with temporary.open("wb") as copy:
                while data := stream.read(1 << 20):
                    copy.write(data)
            if not stream.is_whole(shard):
                raise LoaderError(f"{shard.file} of {source.address} is damaged: {_DIFFERS}")
    with source.open(MANIFEST_NAME) as raw:
        write_file(folder / MANIFEST_NAME, raw.read(MAX_MANIFEST_BYTES))
    return ShardSet.open(folder)
