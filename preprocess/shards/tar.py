"""The one reader of shards as archives: only what preprocess writes is a member, everything else is refused.

A general tar reader follows links, unpacks compressed archives unasked, and fills holes of sparse members with as many
zero bytes as a header claims. A shard has none of these, so none of them is understood here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from preprocess.shards.tar_layout import BLOCK, JSON_MEMBER, MAGIC, REGULAR, blocks, header_sum

MAX_MEMBER_BYTES = 1 << 28


class TarDamage(ValueError):
    """The archive is cut, rotten, or no shard; the message says what, without naming the file."""


class Readable(Protocol):
    """Anything that gives the next ``size`` bytes, or fewer at its end."""

    def read(self, size: int, /) -> bytes: ...


def read_members(stream: Readable, image_suffix: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member up to the end of the archive; memory is that of one member.

    Raises:
        TarDamage: something is there that no shard holds, or the archive ends too early.
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
    """Name and size of a regular member of a plain name. Raises TarDamage."""
    try:
        if header[257:263] != MAGIC or int(header[148:154], 8) != header_sum(header):
            raise TarDamage("a header of a member is damaged")
        name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
    except ValueError as error:
        raise error if isinstance(error, TarDamage) else TarDamage("a header of a member is damaged") from None
    if header[156:157] != REGULAR:
        raise TarDamage(f"its member {name!r} is a link or another special entry, which no shard holds")
    if not name.endswith(suffixes) or "/" in name or "\\" in name:
        raise TarDamage(f"it holds a member {name!r}, which no shard has: only {' and '.join(suffixes)} are read")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise TarDamage(f"its member {name!r} claims to have {size:,} bytes")
    return name, size
