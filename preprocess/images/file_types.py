"""Recognizes a file by its first bytes, because names lie: `.jpg.1`, no suffix, a web page called `.zip`.

This module imports neither Pillow nor NumPy, so that a folder of a million files is listed fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 512  # what `file_type` wants to see of a file: a tar names itself at byte 257

Family = Literal["picture", "archive", "parquet", "other"]


@dataclass(frozen=True)
class FileType:
    """What a file is.

    Attributes:
        name: for a message, with its article: "a PNG picture", "a web page".
        family: what can be done with it.
        remedy: what a user can do to have it read, or "" where it is read, or where nothing helps.
    """

    name: str
    family: Family
    remedy: str = ""


_HEIF_REMEDY = "install pillow-heif (pip install 'mmd-vlae[heif]'), or convert it to JPEG or PNG"
_CONVERT = "convert it to JPEG or PNG"
EMPTY = FileType("an empty file", "other")
UNKNOWN = FileType("a file of an unknown type", "other")
TEXT = FileType("a text file", "other")
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
_TO_PARQUET = "convert it with `datasets.load_from_disk(FOLDER).to_parquet('train.parquet')`"
ARROW = FileType("an Arrow file, as datasets' save_to_disk writes it", "other", _TO_PARQUET)

_STARTS: tuple[tuple[bytes, FileType], ...] = (
    (b"\xff\xd8\xff", FileType("a JPEG picture", "picture")),
    (b"\x89PNG\r\n\x1a\n", FileType("a PNG picture", "picture")),
    (b"GIF8", FileType("a GIF picture", "picture")),
    (b"II*\0", FileType("a TIFF picture", "picture")),
    (b"MM\0*", FileType("a TIFF picture", "picture")),
    (b"II+\0", FileType("a TIFF picture", "picture")),
    (b"MM\0+", FileType("a TIFF picture", "picture")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", FileType("a JPEG 2000 picture", "picture")),
    (b"\xff\x4f\xff\x51", FileType("a JPEG 2000 picture", "picture")),
    (b"\xff\x0a", FileType("a JPEG XL picture", "picture", _CONVERT)),
    (b"\0\0\0\x0cJXL \r\n\x87\n", FileType("a JPEG XL picture", "picture", _CONVERT)),
    (b"FUJIFILMCCD-RAW", FileType("a camera's raw picture", "picture", _CONVERT)),
    (b"8BPS", FileType("a Photoshop picture", "picture", _CONVERT)),
    (b"qoif", FileType("a QOI picture", "picture", _CONVERT)),
    (b"v/1\x01", FileType("an OpenEXR picture", "picture", _CONVERT)),
    (b"7z\xbc\xaf\x27\x1c", FileType("a 7z archive", "archive", "unpack it with `7z x {path}`")),
    (b"Rar!\x1a\x07", FileType("a RAR archive", "archive", "unpack it with `unrar x {path}`")),
    (b"\x28\xb5\x2f\xfd", FileType("a Zstandard file", "archive", "unpack it with `tar --zstd -xf {path}`")),
    (b"\x04\x22\x4d\x18", FileType("an LZ4 file", "archive", "unpack it with `lz4 -dc {path} | tar -xf -`")),
    (b"\x1f\x8b", GZIP),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\0", XZ),
    (b"\x5d\0\0", LZMA),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"PK\x07\x08", ZIP),
    (b"PAR1", PARQUET),
    (b"ARROW1\0\0", ARROW),
    (b"\0\0\x08\x01", IDX),
    (b"\0\0\x08\x03", IDX),
    (b"%PDF", FileType("a PDF document", "other")),
    (b"\x89HDF", FileType("an HDF5 file", "other")),
    (b"\x93NUMPY", FileType("a NumPy array", "other")),
    (b"SQLite format 3", FileType("an SQLite database", "other")),
    (b"MATLAB 5.0", FileType("a MATLAB file", "other")),
    (b"version https://git-lfs", LFS_POINTER),
    (b"\x1aE\xdf\xa3", FileType("a video", "other")),
    (b"\0\5\x16\7", FileType("a macOS resource fork", "other")),
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_VIDEO = FileType("a video", "other")
_NETPBM = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_BMP_HEADERS = frozenset((b"\x28\0\0\0", b"\x0c\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"))


def file_type(head: bytes) -> FileType:
    """Tells what a file is.

    Args:
        head: its first bytes, `HEAD_BYTES` of them or all there are.
    """
    return (_by_signature(head) or _text_type(head)) if head else EMPTY


def _by_signature(head: bytes) -> FileType | None:
    for start, found in _STARTS:
        if head.startswith(start):
            return found
    found = None
    if head[4:8] == b"ftyp":
        found = _iso_media(head)
    elif head.startswith(b"RIFF"):
        found = FileType("a WebP picture", "picture") if head[8:12] == b"WEBP" else _VIDEO
    elif head.startswith(b"BM") and head[14:18] in _BMP_HEADERS:
        found = FileType("a BMP picture", "picture")
    elif head[:1] == b"P" and head[1:2] in _NETPBM and head[2:3].isspace():
        found = FileType("a Netpbm picture", "picture")
    elif head[257:262] == b"ustar":
        found = TAR
    elif head.startswith(b"\xff\xff\xff\xff") and head[6:8] == b"\0\0":
        found = ARROW
    return found


def _iso_media(head: bytes) -> FileType:
    """A file in ISO's base media format: its brands say which; the major one comes first."""
    end = min(len(head), max(12, int.from_bytes(head[:4], "big")))
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return AVIF
    if any(brand in _HEIF_BRANDS for brand in brands):
        return HEIC
    if head[8:12] == b"crx ":
        return FileType("a camera's raw picture", "picture", _CONVERT)
    return _VIDEO


def _text_type(head: bytes) -> FileType:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return WEB_PAGE
    if b"<svg" in start:
        return FileType("an SVG drawing", "picture", _CONVERT)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TEXT
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return TEXT if printable == len(head) and b"\x7f" not in head and _decodes(head) else UNKNOWN


def _decodes(head: bytes) -> bool:
    """Whether this is UTF-8, but for a letter that the cut at the end may have halved."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True
