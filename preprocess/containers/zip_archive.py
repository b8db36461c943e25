"""Zip archives of image files: read at random, checksums compared, and no member's name used as a path."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.containers.container import MAX_FILE_BYTES, MAX_LIST_BYTES, Container, FileReader, refuse_long_list
from preprocess.containers.file_kinds import LIST_SUFFIXES, has_image_suffix, refuse_file, suffix_of
from preprocess.errors import UnreadableImage, UsageError, first_line
from preprocess.images.file_types import HEAD_BYTES

_MAX_OFFSET = 1 << 62
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, length of the name, length of the extra field


class ZipContainer(Container):
    """The images of a zip archive."""

    def __init__(self, path: Path) -> None:
        """Lists the archive.

        Raises:
            UsageError: When it is damaged or cut short.
        """
        super().__init__(path)
        self.lists = self._lists = dict[str, zipfile.ZipInfo]()
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    self._add(info, archive)
        except UsageError:
            raise
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        except Exception:  # zipfile raises nearly anything on hostile archives
            raise refuse_file(path, damaged=True) from None
        self.names = sorted(self._images)

    def _add(self, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> None:
        name = info.filename.replace("\\", "/")  # old Windows tools write backslashes
        if not name or name.endswith("/") or self._refuse(name, stat.S_ISLNK(info.external_attr >> 16)):
            return
        if max(info.file_size, info.compress_size, info.header_offset) > _MAX_OFFSET:
            raise UsageError(f"{self.path} is damaged: it claims a member of {info.file_size:,} bytes")
        if has_image_suffix(name.rpartition("/")[2]) or self._is_image(name, _head(archive, info)):
            if name in self._images:
                raise UsageError(f"{self.path} holds {name} twice: unpack it and give the folder of images")
            self._images[name] = f"{info.file_size}\0{info.CRC}", info
        elif suffix_of(name) in LIST_SUFFIXES:
            self._lists[name] = info

    def list_again(self) -> ZipContainer:
        return ZipContainer(self.path)

    def reader(self, names: Sequence[str], scratch: Path | None = None) -> ZipImages:
        infos: list[zipfile.ZipInfo] = [self._images[name][1] for name in names]
        members = [(i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC, i.flag_bits) for i in infos]
        return ZipImages(str(self.path.resolve()), np.array(members, np.int64).reshape(-1, 6))

    def text(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._lists[name]) as file:
                content = file.read(MAX_LIST_BYTES + 1)  # at most this, although the member may claim less
        except Exception as error:  # zipfile raises nearly anything on hostile archives
            raise UsageError(f"{name} in {self.path} cannot be read: {first_line(error)}") from None
        refuse_long_list(len(content), f"{name} in {self.path}")
        return content


def _head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The first bytes of a member; where it cannot be read, those of an image: reading it then says why."""
    try:
        with archive.open(info) as file:
            return file.read(HEAD_BYTES)
    except Exception:  # zipfile raises nearly anything on hostile archives
        return b" " if suffix_of(info.filename) in LIST_SUFFIXES else b"\xff\xd8\xff"


@dataclass(frozen=True)
class ZipImages(FileReader):
    """Members of one archive, fetched by their offsets; the archive's checksums are compared."""

    path: str
    members: np.ndarray  # int64 (n, 6): header offset, stored bytes, bytes, method, CRC, flags

    def files(self) -> Iterator[bytes | UnreadableImage]:
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
            for member in self.members.tolist():
                try:
                    yield _zip_member(file.fileno(), *member)
                except UnreadableImage as reason:
                    yield reason
                except OSError as error:
                    yield UnreadableImage(f"cannot be read: {error.strerror}")


def _zip_member(handle: int, offset: int, stored: int, size: int, method: int, crc: int, flags: int) -> bytes:
    if flags & 1:
        raise UnreadableImage("encrypted in the archive: unpack it with its password and give the folder")
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
        name = getattr(zipfile, "compressor_names", {}).get(method, f"method {method}")
        raise UnreadableImage(f"compressed by {name}, which is not read: unpack the archive and give the folder")
    if len(data) != size or zlib.crc32(data) != crc:
        raise UnreadableImage("damaged archive: the checksum does not match")
    return data
