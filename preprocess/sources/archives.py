"""Where image files lie: a folder or a zip archive. Both are listed once and read by many workers.

Nothing is unpacked, and no name from an archive is ever used as a path.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from preprocess.build.task import PixelReader
from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import LeftOut
from preprocess.sources.index import printable

_JPEG_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif"))
IMAGE_SUFFIXES = _JPEG_SUFFIXES | frozenset(
    (".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2")
)
MAX_LIST_BYTES = 1 << 26  # of an annotation file; CelebA's longest has 27 MB
MAX_FILE_BYTES = 1 << 28  # no photograph has more; a hostile zip member may claim any size
_USUAL_FILE_BYTES = 1 << 16
_MAX_OFFSET = 1 << 62
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, length of the name, length of the extra field


class Container(Protocol):
    """A place with image files in it."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> list[str]:
        """The image files' names without folders, sorted."""
        ...

    @property
    def refused(self) -> list[LeftOut]:
        """What is not read for what it is called, or because it is a link."""
        ...

    def identity(self) -> Iterable[str]:
        """One line per image that changes when the image does (name, size, …)."""
        ...

    def stamp(self) -> int:
        """Another number when an image is written again, though its name and size stay; of this place and time only."""
        ...

    def reader(self, names: Sequence[str]) -> PixelReader: ...

    def text(self, name: str) -> bytes | None:
        """The content of an annotation file inside the container; None where it has none."""
        ...


def is_image_name(name: str) -> bool:
    """Whether a file name looks like an image's (macOS's `._` companions do not count)."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def refuse_long_list(size: int, where: str) -> None:
    """Raises UsageError where an annotation file is too large to be one."""
    if size > MAX_LIST_BYTES:
        raise UsageError(f"{where} has more than {MAX_LIST_BYTES:,} bytes: that is no annotation file; remove it")


class FolderContainer:
    """The image files directly inside one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed = self._list()
        self.names = sorted(self._listed)
        self.refused: list[LeftOut] = []

    def identity(self) -> Iterable[str]:
        return (f"{name}\0{self._listed[name][0]}" for name in self.names)

    def stamp(self) -> int:
        return hash(tuple(self._listed[name][1] for name in self.names))

    def reader(self, names: Sequence[str]) -> PixelReader:
        return FolderImages(str(self.path.resolve()), list(names))

    def text(self, name: str) -> bytes | None:
        del name
        return None

    def _list(self) -> dict[str, tuple[int, int]]:
        """Size and time of change (ns) of each file."""
        try:
            with os.scandir(self.path) as entries:
                found = ((e.name, e.stat()) for e in entries if is_image_name(e.name) and e.is_file())
                return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found}
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from None


class ZipContainer:
    """The image files in a zip archive, in whatever folders it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._texts: dict[str, str] = {}
        self.refused: list[LeftOut] = []
        for info in self._members():
            member = PurePosixPath(info.filename)
            if not info.filename or info.is_dir() or "__MACOSX" in member.parts:
                continue
            if reason := _why_strange(info):
                self.refused.append(LeftOut(key=printable(info.filename)[:100], reason=reason))
                continue
            if max(info.file_size, info.compress_size, info.header_offset) > _MAX_OFFSET:
                raise UsageError(f"{self.path} is damaged: it claims a member of {info.file_size:,} bytes")
            if is_image_name(member.name):
                self._add_image(member.name, info)
            elif member.suffix in {".txt", ".csv"}:
                self._texts[member.name] = info.filename
        self.names = sorted(self._entries)

    def identity(self) -> Iterable[str]:
        yield from (f"{n}\0{self._entries[n].file_size}\0{self._entries[n].CRC}" for n in self.names)
        yield from (f"refused\0{left.key}" for left in self.refused)

    def stamp(self) -> int:
        return 0  # the checksums of the identity tell

    def reader(self, names: Sequence[str]) -> PixelReader:
        infos = [self._entries[name] for name in names]
        members = [(i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC) for i in infos]
        encrypted = [bool(i.flag_bits & 1) for i in infos]
        return ZipImages(str(self.path.resolve()), np.array(members, np.int64).reshape(-1, 5), encrypted)

    def text(self, name: str) -> bytes | None:
        if name not in self._texts:
            return None
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._texts[name]) as file:
                content = file.read(MAX_LIST_BYTES + 1)  # whatever size the member claims
        except Exception as error:  # zipfile raises nearly anything on hostile archives
            raise UsageError(f"{name} in {self.path} cannot be read: {' '.join(str(error).split())}") from None
        refuse_long_list(len(content), f"{name} in {self.path}")
        return content

    def _members(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.infolist()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror or error}") from None
        except Exception:  # zipfile raises nearly anything on hostile archives
            raise UsageError(f"{self.path} is not a whole zip archive{self._guess()}") from None

    def _guess(self) -> str:
        with self.path.open("rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype", b"<html")):
            return ": it is a web page, as Google Drive sends when its quota is used up; download it again"
        return ": it was cut short or damaged; download it again"

    def _add_image(self, name: str, info: zipfile.ZipInfo) -> None:
        if name in self._entries:
            raise UsageError(
                f"{self.path} holds two images called {name} ({self._entries[name].filename} and {info.filename}): "
                "unpack it and point --source to one folder of images"
            )
        self._entries[name] = info


def _why_strange(info: zipfile.ZipInfo) -> str:
    """Why a member is not read, or "": no name becomes a path here, but a set that climbs or links is no honest one."""
    member = PurePosixPath(info.filename.replace("\\", "/"))
    if member.is_absolute() or ".." in member.parts:
        return "a name that leaves the archive's folder: do not unpack it"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link: repack the archive with the file itself"
    return ""


@dataclass(frozen=True)
class FolderImages:
    """Files of one folder."""

    folder: str
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def files(self) -> Iterator[bytes | UnreadableImage]:
        """The files' contents, in order."""
        for name in self.names:
            try:
                handle = os.open(f"{self.folder}/{name}", os.O_RDONLY)  # a third of pathlib's time
                try:
                    yield _whole_file(handle)
                finally:
                    os.close(handle)
            except OSError as error:
                yield UnreadableImage(f"cannot be read: {error.strerror}")

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        return decoded(self.files())


def _whole_file(handle: int) -> bytes | UnreadableImage:
    content = os.read(handle, _USUAL_FILE_BYTES)
    if len(content) < _USUAL_FILE_BYTES:
        return content  # without asking for the size: a fifth of the time that reading a portrait takes
    size = os.fstat(handle).st_size
    if size > MAX_FILE_BYTES:
        return UnreadableImage(f"has {size:,} bytes")
    return content + os.read(handle, size - len(content))


@dataclass(frozen=True)
class ZipImages:
    """Members of one archive, fetched by their offsets; the archive's checksums are compared."""

    path: str
    members: np.ndarray  # int64 (n, 5): header offset, stored bytes, bytes, method, CRC
    encrypted: list[bool]

    def __len__(self) -> int:
        return len(self.members)

    def files(self) -> Iterator[bytes | UnreadableImage]:
        """The members' contents, in order."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            for member, locked in zip(self.members.tolist(), self.encrypted, strict=True):
                try:
                    yield _zip_member(handle, member, locked)
                except UnreadableImage as reason:
                    yield reason
                except OSError as error:
                    yield UnreadableImage(f"cannot be read: {error.strerror}")
        finally:
            os.close(handle)

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        return decoded(self.files())


def _zip_member(handle: int, member: list[int], locked: bool) -> bytes:
    offset, stored, size, method, crc = member
    if locked:
        raise UnreadableImage("encrypted in the archive")
    if max(stored, size) > MAX_FILE_BYTES:
        raise UnreadableImage(f"claims to have {size:,} bytes")
    header = os.pread(handle, _LOCAL_HEADER.size, offset)
    if len(header) < _LOCAL_HEADER.size:
        raise UnreadableImage("beyond the archive's end")
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise UnreadableImage("damaged archive: no member where the directory says")
    data = os.pread(handle, stored, offset + _LOCAL_HEADER.size + name_length + extra_length)
    if method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)  # 0 would mean: without limit
        except zlib.error as error:
            raise UnreadableImage(f"damaged archive: {error}") from None
    elif method != zipfile.ZIP_STORED:
        raise UnreadableImage(f"compressed by method {method}, which is not read; repack the archive")
    if len(data) != size or zlib.crc32(data) != crc:
        raise UnreadableImage("damaged archive: the checksum does not match")
    return data


def decoded(files: Iterator[bytes | UnreadableImage]) -> Iterator[np.ndarray | UnreadableImage]:
    """Decodes files one after the other: uint8 (h, w, 3), valid until the next, or the reason why not."""
    decoder = Decoder()
    for content in files:
        try:
            yield content if isinstance(content, UnreadableImage) else decoder.rgb(content)
        except UnreadableImage as reason:
            yield reason
