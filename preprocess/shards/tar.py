"""Shards as tar archives: how they are laid out, written by hand, and read strictly.

An npy shard is a plain ustar archive in which every sample takes the same number of bytes. One record is
`KEY.image.npy` and then `KEY.json`, each a 512-byte header and a body padded to 512 bytes. All records are alike, so
the shard is also an array: the pixels of sample i start at i * record_bytes + image_offset. Headers hold no time,
user or group, so equal samples make equal bytes.

A general tar reader follows links, unpacks compressed archives, and fills holes of sparse members with as many zero
bytes as a header claims. A shard has none of these, so `read_members` refuses them.
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
IMAGE_MEMBER, JSON_MEMBER = ".image.npy", ".json"
MAX_KEY_BYTES = 100 - len(IMAGE_MEMBER)  # a ustar name field has 100 bytes
MAX_MEMBER_BYTES = 1 << 28
_MAGIC, _REGULAR = b"ustar\0", b"0"
_NAME_BYTES = 100
_CHECKSUM, _SUM_DIGITS = slice(148, 156), slice(148, 154)


class TarDamage(ValueError):
    """The archive is truncated, corrupt, or not a shard. The message says which, without the name of the file."""


class Layout(BaseModel):
    """Where the image and the JSON lie inside one record of an npy shard, in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    record_bytes: PositiveInt
    image_offset: PositiveInt
    image_bytes: PositiveInt
    json_offset: PositiveInt
    json_bytes: PositiveInt

    @model_validator(mode="after")
    def _lies_inside(self) -> Layout:
        image_end, json_end = self.image_offset + self.image_bytes, self.json_offset + self.json_bytes
        if image_end > self.json_offset or json_end > self.record_bytes:
            raise ValueError("the image and the JSON do not lie inside their record")
        return self


def layout_of(image_shape: tuple[int, int, int], json_bytes: int) -> Layout:
    """Returns the layout for uint8 images of (H, W, C) and a JSON text of at most `json_bytes`."""
    header, pixels = len(npy_header(image_shape)), math.prod(image_shape)
    json_offset = BLOCK + blocks(header + pixels) + BLOCK
    padded_json = blocks(json_bytes)  # padded with blanks instead of zero bytes: the JSON fills its blocks
    return Layout(
        record_bytes=json_offset + padded_json,
        image_offset=BLOCK + header,
        image_bytes=pixels,
        json_offset=json_offset,
        json_bytes=padded_json,
    )


def blocks(length: int) -> int:
    """Rounds a number of bytes up to whole tar blocks."""
    return -(-length // BLOCK) * BLOCK


@lru_cache(maxsize=8)
def npy_header(shape: tuple[int, ...]) -> bytes:
    """Returns the bytes that np.save puts before a C-ordered uint8 array of this shape."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return out.getvalue()


def member_header(name: bytes, size: int) -> bytes:
    """Returns the 512-byte ustar header of a read-only file without time or owner.

    Raises:
        ValueError: the name does not fit into the header.
    """
    if len(name) > _NAME_BYTES:
        raise ValueError(f"the member name {name!r} is longer than 100 bytes")
    header = _nameless_header(size)
    checksum = int(header[_SUM_DIGITS], 8) + sum(name)
    return name.ljust(_NAME_BYTES, b"\0") + header[_NAME_BYTES:148] + b"%06o" % checksum + header[154:]


@lru_cache(maxsize=8)  # all records of npy shards have the same two
def _nameless_header(size: int) -> bytes:
    member = tarfile.TarInfo()
    member.mode, member.size = 0o444, size
    return member.tobuf(tarfile.USTAR_FORMAT)


def npy_record(key: str, pixels: np.ndarray, text: bytes, layout: Layout) -> bytes:
    """Returns one sample of an npy shard, layout.record_bytes long.

    Args:
        key: the sample's key.
        pixels: uint8 (H, W, C).
        text: its JSON.
        layout: that of the shard.

    Raises:
        ValueError: the key or the JSON is too long for its record.
    """
    if len(key) > MAX_KEY_BYTES or len(text) > layout.json_bytes:
        raise ValueError(f"the key or the JSON of {key} ({len(text)} bytes) does not fit into its record")
    image = npy_header(pixels.shape) + pixels.tobytes()
    return encoded_record(key, IMAGE_MEMBER.removeprefix("."), image, text.ljust(layout.json_bytes))


def encoded_record(key: str, ending: str, image: bytes, text: bytes) -> bytes:
    """Returns `KEY.ENDING` and `KEY.json` as archive members, which take as many blocks as they need."""
    members = ((f"{key}.{ending}", image), (key + JSON_MEMBER, text))
    return b"".join(
        part
        for name, body in members
        for part in (member_header(name.encode(), len(body)), body, bytes(blocks(len(body)) - len(body)))
    )


class Readable(Protocol):
    """Anything that returns the next `size` bytes, or fewer at its end."""

    def read(self, size: int, /) -> bytes: ...


def read_members(stream: Readable, image_suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of each member up to the end of the archive, one member in memory at a time.

    Raises:
        TarDamage: the archive ends too early, or holds something that no shard holds.
    """
    while True:
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise TarDamage("it ends without an end of archive")
        if not header.strip(b"\0"):
            return
        name, size = _parse(header, (image_suffix, JSON_MEMBER))
        body = stream.read(blocks(size))
        if len(body) < blocks(size):
            raise TarDamage(f"it ends within its member {name}")
        yield name, body[:size]


def _parse(header: bytes, suffixes: tuple[str, str]) -> tuple[str, int]:
    """Returns the name and size of a regular member with a plain name. Raises TarDamage for any other."""
    try:
        stated_sum, size = int(header[_SUM_DIGITS], 8), int(header[124:135], 8)
        name = header[:_NAME_BYTES].rstrip(b"\0").decode("ascii")
    except ValueError:
        raise TarDamage("a header of a member is damaged") from None
    # the checksum is the sum of the header's bytes, with blanks for the checksum itself
    if header[257:263] != _MAGIC or stated_sum != sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" "):
        raise TarDamage("a header of a member is damaged")
    if header[156:157] != _REGULAR:
        raise TarDamage(f"its member {name!r} is a link or another special entry, which no shard holds")
    if not _is_member_name(name, suffixes):
        raise TarDamage(f"it holds a member {name!r}, which no shard has: only {' and '.join(suffixes)} are read")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise TarDamage(f"its member {name!r} claims to have {size:,} bytes")
    return name, size


def _is_member_name(name: str, suffixes: tuple[str, str]) -> bool:
    return name.endswith(suffixes) and "/" not in name and "\\" not in name


def _all_end_with(names: np.ndarray, suffix: str) -> bool:
    return bool(np.strings.endswith(names, suffix.encode()).all())


def are_records(records: np.ndarray, layout: Layout, image_shape: tuple[int, int, int]) -> bool:
    """Whether each record is one image and its JSON, exactly as `npy_record` writes them.

    Args:
        records: uint8 (n, layout.record_bytes).
        layout: where the members lie.
        image_shape: (H, W, C), which the image's npy header must state.
    """
    members = (
        (0, IMAGE_MEMBER, layout.image_offset - BLOCK + layout.image_bytes),
        (layout.json_offset - BLOCK, JSON_MEMBER, layout.json_bytes),
    )
    for start, suffix, size in members:
        header = records[:, start : start + BLOCK]
        expected = np.frombuffer(member_header(b"", size), np.uint8)
        for part in (slice(124, 135), slice(156, 157), slice(257, 263)):  # size, kind, magic
            if not (header[:, part] == expected[part]).all():
                return False
        names = np.ascontiguousarray(header[:, :_NAME_BYTES]).view(f"S{_NAME_BYTES}")
        if not _all_end_with(names, suffix):
            return False
    npy = np.frombuffer(npy_header(image_shape), np.uint8)
    return bool((records[:, BLOCK : layout.image_offset] == npy).all())
