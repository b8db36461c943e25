"""Zip archives of image files: read at random, checksums compared, and no member's name used as a path."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.containers.container import MAX_FILE_BYTES, MAX_LIST_BYTES, Container, FileReader, refuse_long_list
from preprocess.containers.file_kinds import LIST_SUFFIXES, Members, has_image_suffix, refuse_file
from preprocess.errors import UnreadableImage, UsageError, first_line
from preprocess.images.file_types import HEAD_BYTES

_MAX_OFFSET = 1 << 62
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, length of the name, length of the extra field


class ZipContainer(Container):
    """The images of a zip archive."""

    def __init__(self, path: Path) -> None:
        """Lists the archive.

        Raises:
            UsageError: it is damaged or cut short.
        """
        super().__init__(path)
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.lists = self._texts = dict[str, str]()
        members = Members()
        self.left_out, self.ignored = members.left_out, members.ignored
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    self._add(info, archive, members)
        except UsageError:
            raise
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
        except Exception:  # zipfile raises nearly anything on hostile archives
            raise refuse_file(path, damaged=True) from None
        self.names = sorted(self._entries)

    def identity(self) -> Iterator[tuple[str, str]]:
        yield from ((n, f"{self._entries[n].file_size}\0{self._entries[n].CRC}") for n in self.names)
        yield from (("refused", left.key) for left in self.left_out)

    def list_again(self) -> ZipContainer:
        return ZipContainer(self.path)

    def reader(self, names: Sequence[str], scratch: Path | None = None) -> ZipImages:
        del scratch
        infos = [self._entries[name] for name in names]
        members = [(i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC) for i in infos]
        encrypted = [bool(i.flag_bits & 1) for i in infos]
        return ZipImages(str(self.path.resolve()), np.array(members, np.int64).reshape(-1, 5), encrypted)

    def content_hash(self, name: str) -> str:
        (content,) = self.reader([name]).files()
        if isinstance(content, UnreadableImage):
            raise content
        return hashlib.sha256(content).hexdigest()

    def text(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._texts[name]) as file:
                content = file.read(MAX_LIST_BYTES + 1)  # at most this, although the member may claim less
        except Exception as error:  # zipfile raises nearly anything on hostile archives
            raise UsageError(f"{name} in {self.path} cannot be read: {first_line(error)}") from None
        refuse_long_list(len(content), f"{name} in {self.path}")
        return content

    def _add(self, info: zipfile.ZipInfo, archive: zipfile.ZipFile, members: Members) -> None:
        name = info.filename.replace("\\", "/")  # old Windows tools write backslashes
        if not name or name.endswith("/") or members.refuse(name, stat.S_ISLNK(info.external_attr >> 16)):
            return
        if max(info.file_size, info.compress_size, info.header_offset) > _MAX_OFFSET:
            raise UsageError(f"{self.path} is damaged: it claims a member of {info.file_size:,} bytes")
        member = PurePosixPath(name)
        is_list = member.suffix.lower() in LIST_SUFFIXES
        head = None if has_image_suffix(member.name) else _zip_head(archive, info)
        if not members.is_image(name, b" " if is_list and head is None else head):
            if is_list:
                self._texts[name] = info.filename
            return
        if name in self._entries:
            raise UsageError(f"{self.path} holds {name} twice: unpack it and give the folder of images")
        self._entries[name] = info


def _zip_head(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    """The first bytes of a member; None where it cannot be read: reading it as an image then says why."""
    try:
        with archive.open(info) as file:
            return file.read(HEAD_BYTES)
    except Exception:  # zipfile raises nearly anything on hostile archives
        return None


@dataclass(frozen=True)
class ZipImages(FileReader):
    """Members of one archive, fetched by their offsets; the archive's checksums are compared."""

    path: str
    members: np.ndarray  # int64 (n, 5): header offset, stored bytes, bytes, method, CRC
    encrypted: list[bool]

    def files(self) -> Iterator[bytes | UnreadableImage]:
        """Yields the members' contents, in order."""
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


def _zip_member(handle: int, member: list[int], locked: bool) -> bytes:
    offset, stored, size, method, crc = member
    if locked:
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
