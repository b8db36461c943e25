"""Recognizes a file by its first bytes, because names lie: `.jpg.1`, no suffix, a web page called `.zip`.

This module imports neither Pillow nor NumPy, so that a folder of a million files is listed fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 512  # what `file_type` wants to see of a file: a tar names itself at byte 257


@dataclass(frozen=True)
class FileType:
    """What a file is, and what can be done with it."""

    name: str  # for a message, with its article: "a PNG picture", "a web page"
    family: Literal["picture", "archive", "parquet", "other"] = "other"
    remedy: str = ""  # what a user can do to have it read; "" where it is read, or where nothing helps


_HEIF_REMEDY = "install pillow-heif (pip install 'mmd-vlae[heif]'), or convert it to JPEG or PNG"
_CONVERT = "convert it to JPEG or PNG"
_TO_PARQUET = "convert it with `datasets.load_from_disk(FOLDER).to_parquet('train.parquet')`"
EMPTY = FileType("an empty file")
UNKNOWN = FileType("a file of an unknown type")
TEXT = FileType("a text file")
WEB_PAGE = FileType("a web page", "other", "download it again: the server sent a page instead of the file")
LFS_POINTER = FileType("a Git LFS pointer, not the file itself", "other", "fetch it with `git lfs pull`")
HEIC = FileType("a HEIC picture", "picture", _HEIF_REMEDY)
AVIF = FileType("an AVIF picture", "picture", _HEIF_REMEDY)
TAR = FileType("a tar archive", "archive")
GZIP = FileType("a gzip file", "archive")
BZIP2 = FileType("a bzip2 file", "archive")
XZ = FileType("an xz file", "archive")
LZMA = FileType("an LZMA file", "archive")
ZIP = FileType("a zip archive", "archive")
PARQUET = FileType("a parquet file", "parquet")
IDX = FileType("an IDX file, as MNIST has", "other", "make shards of its folder with `preprocess mnist`")
_RAW = FileType("a camera's raw picture", "picture", _CONVERT)
_VIDEO = FileType("a video")

# regular expressions of the first bytes; the first that matches counts
_STARTS: tuple[tuple[bytes, FileType], ...] = (
    (rb"\xff\xd8\xff", FileType("a JPEG picture", "picture")),
    (rb"\x89PNG\r\n\x1a\n", FileType("a PNG picture", "picture")),
    (rb"GIF8", FileType("a GIF picture", "picture")),
    (rb"II[*+]\0|MM\0[*+]", FileType("a TIFF picture", "picture")),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", FileType("a JPEG 2000 picture", "picture")),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", FileType("a JPEG XL picture", "picture", _CONVERT)),
    (rb"FUJIFILMCCD-RAW", _RAW),
    (rb"8BPS", FileType("a Photoshop picture", "picture", _CONVERT)),
    (rb"qoif", FileType("a QOI picture", "picture", _CONVERT)),
    (rb"v/1\x01", FileType("an OpenEXR picture", "picture", _CONVERT)),
    (rb"7z\xbc\xaf\x27\x1c", FileType("a 7z archive", "archive", "unpack it with `7z x {path}`")),
    (rb"Rar!\x1a\x07", FileType("a RAR archive", "archive", "unpack it with `unrar x {path}`")),
    (rb"\x28\xb5\x2f\xfd", FileType("a Zstandard file", "archive", "unpack it with `tar --zstd -xf {path}`")),
    (rb"\x04\x22\x4d\x18", FileType("an LZ4 file", "archive", "unpack it with `lz4 -dc {path} | tar -xf -`")),
    (rb"\x1f\x8b", GZIP),
    (rb"BZh", BZIP2),
    (rb"\xfd7zXZ\0", XZ),
    (rb"\x5d\0\0", LZMA),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", ZIP),
    (rb"PAR1", PARQUET),
    (rb"\0\0\x08[\x01\x03]", IDX),
    (rb"%PDF", FileType("a PDF document")),
    (rb"\x89HDF", FileType("an HDF5 file")),
    (rb"\x93NUMPY", FileType("a NumPy array")),
    (rb"SQLite format 3", FileType("an SQLite database")),
    (rb"MATLAB 5\.0", FileType("a MATLAB file")),
    (rb"version https://git-lfs", LFS_POINTER),
    (rb"\0\x05\x16\x07", FileType("a macOS resource fork")),
    (rb"....ftypcrx ", _RAW),
    (rb"RIFF....WEBP", FileType("a WebP picture", "picture")),
    (rb"\x1aE\xdf\xa3|RIFF|....ftyp", _VIDEO),
    (rb"BM.{12}[\x28\x0c\x6c\x7c]\0\0\0", FileType("a BMP picture", "picture")),
    (rb"P[1-6]\s", FileType("a Netpbm picture", "picture")),
    (rb".{257}ustar", TAR),
    (
        rb"ARROW1\0\0|\xff\xff\xff\xff..\0\0",
        FileType("an Arrow file, as datasets' save_to_disk writes it", "other", _TO_PARQUET),
    ),
    (rb"(?i)[\xef\xbb\xbf \t\r\n]*(<!doctype html|<html|<head)", WEB_PAGE),
)
_COMPILED = [(re.compile(start, re.DOTALL), found) for start, found in _STARTS]
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))


def file_type(head: bytes) -> FileType:
    """Tells what a file is by its first `HEAD_BYTES` bytes, or by all that there are."""
    if not head:
        return EMPTY
    if head[4:8] == b"ftyp":  # ISO's base media format: brands say what is in it
        end = min(len(head), max(12, int.from_bytes(head[:4], "big")))
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))}
        if brands & (_AVIF_BRANDS | _HEIF_BRANDS):
            return AVIF if brands & _AVIF_BRANDS else HEIC
    for start, found in _COMPILED:
        if start.match(head):
            return found
    if b"<svg" in head.lower():
        return FileType("an SVG drawing", "picture", _CONVERT)
    return TEXT if _is_text(head) else UNKNOWN


def _is_text(head: bytes) -> bool:
    """Whether this is UTF-16 with its mark, or UTF-8, but for a letter that the cut at the end may have halved."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start <= len(head) - 4:
            return False
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and b"\x7f" not in head
