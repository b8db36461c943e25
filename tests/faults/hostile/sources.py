"""Images, archives and lists made to do harm."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from preprocess.containers.zip_archive import ZipContainer
from preprocess.errors import UnreadableImage
from preprocess.images.decode import Decoder
from preprocess.sources.celeba import open_celeba
from preprocess.sources.celeba_lists import read_attributes, read_identities
from preprocess.sources.celeba_parquet import open_parquet
from preprocess.sources.mnist import open_mnist
from tests.faults.hostile.case import Case

_JPEG = simplejpeg.encode_jpeg(np.zeros((218, 178, 3), np.uint8))


def _png(width: int, height: int, rows: int = 0) -> bytes:
    """A PNG that claims a size, with some of its rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, body = zlib.compressobj(9), b""
    for _ in range(rows):
        body += packer.compress(bytes(1 + 3 * width))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", body + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def _webp(side: int) -> bytes:
    """A small lossless WebP whose header claims a size: 14 bits each of width and height, less one."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "WEBP", lossless=True)
    data = bytearray(out.getvalue())
    place = data.index(b"VP8L") + 9
    rest = int.from_bytes(data[place : place + 4], "little") >> 28 << 28
    data[place : place + 4] = (rest | (side - 1) << 14 | (side - 1)).to_bytes(4, "little")
    return bytes(data)


def _jpeg2000(side: int) -> bytes:
    """A small JPEG 2000 whose header claims a size."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG2000")
    data = bytearray(out.getvalue())
    place = data.index(b"ihdr") + 4
    data[place : place + 8] = struct.pack(">II", side, side)
    return bytes(data)


def _scans(count: int) -> bytes:
    """A progressive JPEG that goes over its picture again and again."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def _raise_first(images: Iterable[np.ndarray | UnreadableImage]) -> None:
    for image in images:
        if isinstance(image, UnreadableImage):
            raise image


def _zip(folder: Path, name: str, content: bytes, mode: int = stat.S_IFREG | 0o644) -> Path:
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000001.jpg", _JPEG)
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def _read_zip(path: Path) -> None:
    container = ZipContainer(path)
    _raise_first(container.reader(container.names).pixels())
    for left in container.left_out:
        assert container.names == ["000001.jpg"], "a refused member is not read"
        raise UnreadableImage(f"{left.key}: {left.reason}")


def _bomb(folder: Path, says: int) -> None:
    """A member that says so many bytes and unpacks to 1.2 GB."""
    path = _zip(folder, "000001.png", _JPEG)
    archive = zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("000002.jpg", "w") as member:
        for _ in range(1200):
            member.write(bytes(1 << 20))
    data = path.read_bytes()
    honest = struct.pack("<I", 1200 << 20)
    assert data.count(honest) >= 1
    path.write_bytes(data.replace(honest, struct.pack("<I", says)))
    container = ZipContainer(path)
    _raise_first(container.reader(container.names[-1:]).pixels())


def _claim(folder: Path) -> None:
    path = _zip(folder, "000002.jpg", bytes(300 << 20))
    _read_zip(path)


def _list(folder: Path) -> None:
    path = _zip(folder, "list_attr_celeba.txt", bytes(200 << 20))
    open_celeba(path, 0)


def _idx(folder: Path, header: bytes, zeros: int) -> None:
    for part in ("train", "t10k"):
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 1) + b"\0")
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(header)
            for start in range(0, zeros, 1 << 20):
                file.write(bytes(min(1 << 20, zeros - start)))
    open_mnist(folder, 0)


def _parquet(folder: Path) -> None:
    """An image that is only a place: those who follow it read any file of this machine."""
    import pyarrow as pa  # pyright: ignore[reportMissingImports]
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    (folder / "secret.jpg").write_bytes(_JPEG)
    cells = [{"bytes": None, "path": str(folder / "secret.jpg")}, {"bytes": None, "path": "../../canary.jpg"}]
    parquet.write_table(
        pa.table({"image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}),
        folder / "a.parquet",
    )
    catalogue = open_parquet(folder / "a.parquet", 0, None)
    assert catalogue.unpack is not None
    catalogue.unpack(folder)
    assert all("/" not in key and ".." not in key for key in catalogue.table.keys)
    _raise_first(catalogue.reader(range(2), folder).pixels())


CASES = (
    Case("a PNG of 20,000 x 20,000", lambda _: Decoder().rgb(_png(20_000, 20_000, 50)), "more than 50,000,000 pixels"),
    Case("a WebP of 36 megapixels", lambda _: Decoder().rgb(_webp(6000)), "is more than"),
    Case("a JPEG 2000 of 36 megapixels", lambda _: Decoder().rgb(_jpeg2000(6000)), "is more than"),
    Case("a JPEG of 3,000 scans", lambda _: Decoder().rgb(_scans(3000)), "scans"),
    Case(
        "a program in PostScript",
        lambda _: Decoder().rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not an image",
    ),
    Case("a zip member named ../", lambda room: _read_zip(_zip(room, "../../canary.jpg", _JPEG)), "leaves the archive"),
    Case("a zip member named /", lambda room: _read_zip(_zip(room, "/tmp/canary.jpg", _JPEG)), "leaves the archive"),
    Case(
        "a zip member that is a link",
        lambda room: _read_zip(_zip(room, "2.jpg", b"/etc/passwd", stat.S_IFLNK)),
        "a link",
    ),
    Case("a zip member that says 300 MB", _claim, "claims to have"),
    Case("a zip member that says less than it is", lambda room: _bomb(room, 1000), "the checksum does not match"),
    Case("a zip member that says it is empty", lambda room: _bomb(room, 0), "the checksum does not match"),
    Case(
        "a superscript for a count", lambda _: read_attributes("²\nMale\n1.jpg 1\n".encode(), "a list"), "columns where"
    ),
    Case("5,000 digits", lambda _: read_identities(b"1.jpg " + b"9" * 5000, "a list"), "not a valid identity"),
    Case("a list of 200 MB in a zip", _list, "an annotation file is smaller"),
    Case(
        "10^10 digits",
        lambda room: _idx(room, struct.pack(">IIII", 2051, 2**32 - 1, 28, 28), 784),
        "does not hold",
    ),
    Case(
        "250 MB of digits in a megabyte",
        lambda r: _idx(r, struct.pack(">IIII", 2051, 1, 28, 28), 1 << 28),
        "does not",
    ),
    Case("a place instead of an image in parquet", _parquet, "only a path in the file"),
)
