"""Lays out shards by hand: plain ustar archives in which every sample takes the same number of bytes.

One record is `KEY.image.npy` and then `KEY.json`, each a 512-byte header and a body padded to 512 bytes.
Because all records are alike, a shard is also an array: the pixels of sample i start at
i * record_bytes + image_offset. Headers carry no time, user or group, so equal samples make equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from preprocess.shards.manifest import Layout

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
IMAGE_MEMBER, JSON_MEMBER = ".image.npy", ".json"
MAX_KEY_BYTES = 100 - len(IMAGE_MEMBER)  # a ustar name field has 100 bytes
MAGIC, REGULAR = b"ustar\0", b"0"
_NAME_BYTES = 100
_CHECKSUM, _SUM_DIGITS = slice(148, 156), slice(148, 154)
_IMAGE_ENDING, _JSON_ENDING = IMAGE_MEMBER.encode(), JSON_MEMBER.encode()


def blocks(length: int) -> int:
    """Rounds a number of bytes up to whole tar blocks."""
    return -(-length // BLOCK) * BLOCK


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The bytes that np.save puts in front of a C-ordered uint8 array of this shape."""
    out = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(out, description)
    return out.getvalue()


def member_header(name: bytes, size: int) -> bytes:
    """A 512-byte ustar header of a read-only file without time or owner.

    Raises:
        ValueError: the name does not fit the header.
    """
    if len(name) > _NAME_BYTES:
        raise ValueError(f"the member name {name!r} is longer than 100 bytes")
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108] = b"0000444\0"  # mode
    header[108:116] = header[116:124] = b"0000000\0"  # user and group
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"  # time
    header[_CHECKSUM] = b" " * 8  # counts as blanks in its own sum
    header[156:157] = REGULAR
    header[257:265] = MAGIC + b"00"
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def header_sum(header: bytes) -> int:
    """The checksum that a header should state: the sum of its bytes, with blanks for the checksum itself."""
    return sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")


def layout_of(image_shape: tuple[int, int, int], json_bytes: int) -> Layout:
    """The layout for uint8 images of (H, W, C) and a JSON text of at most `json_bytes`."""
    header, pixels = len(npy_header(image_shape)), int(np.prod(image_shape))
    json_offset = BLOCK + blocks(header + pixels) + BLOCK
    padded_json = blocks(json_bytes)  # blanks instead of zero bytes: the JSON fills its blocks
    return Layout(
        record_bytes=json_offset + padded_json,
        image_offset=BLOCK + header,
        image_bytes=pixels,
        json_offset=json_offset,
        json_bytes=padded_json,
    )


def are_records(records: np.ndarray, layout: Layout, image_shape: tuple[int, int, int]) -> bool:
    """Whether bytes (n, layout.record_bytes) are records as written here: an image and its JSON each, and no more."""
    image_bytes = layout.image_offset - BLOCK + layout.image_bytes
    for start, suffix, size in (
        (0, IMAGE_MEMBER, image_bytes),
        (layout.json_offset - BLOCK, JSON_MEMBER, layout.json_bytes),
    ):
        header = records[:, start : start + BLOCK]
        expected = np.frombuffer(member_header(b"", size), np.uint8)
        for part in (slice(124, 135), slice(156, 157), slice(257, 263)):  # size, kind, magic
            if not (header[:, part] == expected[part]).all():
                return False
        names = np.ascontiguousarray(header[:, :100]).view("S100")
        if not np.strings.endswith(names, suffix.encode()).all():
            return False
    npy = np.frombuffer(npy_header(image_shape), np.uint8)
    return bool((records[:, BLOCK : layout.image_offset] == npy).all())


class RecordWriter:
    """Fills a reused buffer with records, a batch at a time."""

    def __init__(self, layout: Layout, image_shape: tuple[int, int, int], batch: int) -> None:
        self._layout, self._shape = layout, image_shape
        self._buffer = bytearray(batch * layout.record_bytes)
        self._records = np.frombuffer(self._buffer, np.uint8).reshape(batch, layout.record_bytes)
        self._json_header = layout.json_offset - BLOCK
        image_header = member_header(_IMAGE_ENDING, layout.image_offset - BLOCK + layout.image_bytes)
        json_header = member_header(_JSON_ENDING, layout.json_bytes)
        self._sums = tuple(int(header[_SUM_DIGITS], 8) for header in (image_header, json_header))
        for start, fixed in ((0, image_header), (BLOCK, npy_header(image_shape)), (self._json_header, json_header)):
            self._records[:, start : start + len(fixed)] = np.frombuffer(fixed, np.uint8)

    def records(self, keys: Sequence[str], images: np.ndarray, texts: Sequence[bytes]) -> memoryview:
        """Returns the records of one batch; the view is valid until the next call.

        Names, checksums, pixels and JSON are put between what all records have in common.

        Args:
            keys: n sample keys.
            images: uint8 (n, H, W, C).
            texts: n JSON texts, each at most layout.json_bytes long.
        """
        layout = self._layout
        pixels = self._records[: len(keys), layout.image_offset : layout.image_offset + layout.image_bytes]
        pixels[...] = images.reshape(len(keys), layout.image_bytes)
        for start, key, text in zip(range(0, len(self._buffer), layout.record_bytes), keys, texts, strict=False):
            if len(key) > MAX_KEY_BYTES or len(text) > layout.json_bytes:
                raise ValueError(f"the key or the annotations of {key} ({len(text)} bytes) do not fit their record")
            self._name_members(start, key.encode())
            json_start = start + layout.json_offset
            self._buffer[json_start : json_start + layout.json_bytes] = text.ljust(layout.json_bytes)
        return memoryview(self._buffer)[: len(keys) * layout.record_bytes]

    def _name_members(self, start: int, key: bytes) -> None:
        """Names the two headers of one record; all else in them is there, and counted in the checksums."""
        buffer, key_sum, (image_sum, json_sum) = self._buffer, sum(key), self._sums
        for header, ending, rest in (
            (start, _IMAGE_ENDING, image_sum),
            (start + self._json_header, _JSON_ENDING, json_sum),
        ):
            buffer[header : header + _NAME_BYTES] = (key + ending).ljust(_NAME_BYTES, b"\0")
            buffer[header + _SUM_DIGITS.start : header + _SUM_DIGITS.stop] = b"%06o" % (rest + key_sum)
