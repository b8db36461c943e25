"""Ways to spoil a file: what accidents do, and what somebody does who knows the format."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    *(
        b"-1",
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"\0",
        "²".encode(),
        "٣".encode(),
        b'"',
        b"'",
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
    *(
        b"[" * 3000,
        b"{" * 3000,
        b"- " * 3000,
        b"&a ",
        b"*a ",
        b"!!python/object/apply:os.system ['touch canary']",
        b"\r",
    ),
    *(b"../../../../etc/passwd", b"\n", b",", b" ", b"\t", b"null", b"true", b"1e-3", b"0x10", b"x" * 200_000),
)


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 20))):
        place = chance.randrange(8 * len(data))
        data[place // 8] ^= 1 << place % 8


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def set_a_field(data: bytearray, chance: random.Random) -> None:
    """Puts an extreme number of 1, 2, 4 or 8 bytes somewhere, mostly near the start or the end, where headers are."""
    near = min(len(data), chance.choice((16, 64, 512, len(data))))
    place = chance.choice((chance.randrange(near), len(data) - 1 - chance.randrange(near)))
    form = chance.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    data[place : place + size] = struct.pack(form, chance.choice(_EXTREMES) % 256**size)


def randomise(data: bytearray, chance: random.Random) -> None:
    place, length = chance.randrange(len(data)), chance.choice((1, 4, 64, 1000))
    data[place : place + length] = chance.randbytes(length)


def repeat(data: bytearray, chance: random.Random) -> None:
    place, length = chance.randrange(len(data)), chance.choice((1, 8, 100, 1000))
    data[place:place] = data[place : place + length] * chance.choice((1, 2, 50))


def remove(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    del data[place : place + chance.choice((1, 8, 100, 1000))]


def insert_a_word(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place : place + chance.choice((0, 1, 5))] = chance.choice(_WORDS)


BINARY = (flip_bits, flip_bits, truncate, set_a_field, set_a_field, randomise, repeat, remove)
TEXT = (*BINARY, insert_a_word, insert_a_word, insert_a_word, insert_a_word)


def mutated(
    seeds: list[bytes], chance: random.Random, ways: tuple[Callable[[bytearray, random.Random], None], ...] = BINARY
) -> bytes:
    """One of the seeds, spoilt in one to three ways; now and then spliced with another, or random from the start on."""
    data = bytearray(chance.choice(seeds))
    kind = chance.random()
    if kind < 0.02:
        return data[: chance.choice((4, 16))] + chance.randbytes(chance.randrange(3000))
    if kind < 0.1:
        other = chance.choice(seeds)
        data = data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]
    for _ in range(chance.choice((1, 1, 2, 3))):
        if data:
            chance.choice(ways)(data, chance)
    return with_png_checksums(bytes(data)) if data.startswith(b"\x89PNG") and chance.random() < 0.7 else bytes(data)


def with_png_checksums(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk put right, so that what is in the chunk is looked at."""
    out, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        length = min(int.from_bytes(data[place : place + 4], "big"), len(data) - place - 12)
        body = data[place + 4 : place + 8 + length]
        out += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(out) + data[place:]
