"""Tar archives of image files, plain or compressed by gzip, bzip2 or xz. Nothing is unpacked by its path.

A plain tar is read at random. A compressed one is read in order: once to list it, and once into a spool.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from preprocess.containers.container import (
    MAX_FILE_BYTES,
    MAX_LIST_BYTES,
    Container,
    IgnoredFile,
    PixelReader,
    decoded,
    printable,
    refuse_long_list,
)
from preprocess.containers.file_kinds import LIST_SUFFIXES, Members, has_image_suffix, part_advice, read_head
from preprocess.containers.spool import SpanImages, SpoolImages, write_spool
from preprocess.errors import UnreadableImage, UsageError, first_line
from preprocess.images.file_types import BZIP2, GZIP, HEAD_BYTES, LZMA, XZ, file_type

_OPENERS = {GZIP: gzip.open, BZIP2: bz2.open, XZ: lzma.open, LZMA: lzma.open}
_KEPT_IMAGES, _KEPT_BYTES = 20, 1 << 22  # of a compressed archive, which would have to be read again for them


@dataclass(frozen=True)
class _Image:
    number: int  # among the archive's images, in its order
    offset: int
    size: int
    version: str  # changes when the image does


class TarContainer(Container):
    """The images of a tar archive."""

    def __init__(self, path: Path) -> None:
        """Lists the archive; a compressed one is read to its end for that.

        Raises:
            UsageError: it is damaged, cut short or not a tar.
        """
        super().__init__(path)
        self._status = _status(path)
        self._compressed = file_type(_head(path)) in _OPENERS
        self.unpack = self._unpack if self._compressed else None
        self._images: dict[str, _Image] = {}
        self.lists = self._lists = dict[str, tuple[int, int] | bytes]()
        self._first: list[bytes] = []
        self._kept = 0  # bytes of lists
        self._in_spool: set[int] = set()  # where the images' data begin
        members = Members()
        self.left_out, self.ignored = members.left_out, members.ignored
        end = 0
        with _one_sentence(path):
            for member, file in _members(path):
                self._add(member, file, members)
                end = member.offset_data + member.size
        if not self._compressed and end + 512 > self._status[0]:  # a compressed one ends with a checksum
            self.notes.append(f"{path} has no end mark: it may have been cut short after {len(self._images):,} images")
        self.names = sorted(self._images)

    def identity(self) -> Iterator[tuple[str, str]]:
        yield from ((name, f"{self._images[name].size}\0{self._images[name].version}") for name in self.names)
        yield from (("refused", left.key) for left in self.left_out)

    def stamp(self) -> int:
        return hash(self._status)

    def list_again(self) -> TarContainer:
        """Returns the archive as it is now; it is read again only if the file has changed."""
        return self if self._status == _status(self.path) else TarContainer(self.path)

    def reader(self, names: Sequence[str], scratch: Path) -> PixelReader:
        """Returns a reader of chosen images; that of a compressed archive needs `unpack` first."""
        images = [self._images[name] for name in names]
        if self._compressed:
            return SpoolImages(str(scratch), [image.number for image in images])
        spans = np.array([(image.offset, image.size) for image in images], np.int64).reshape(-1, 2)
        return SpanImages(str(self.path.resolve()), spans)

    def first_pixels(self, count: int) -> Iterator[np.ndarray | UnreadableImage]:
        return decoded(iter(self._first[:count])) if self._compressed else super().first_pixels(count)

    def content_hash(self, name: str) -> str:
        image = self._images[name]
        if self._compressed:
            return image.version
        if image.size > MAX_FILE_BYTES:
            raise UnreadableImage(f"has {image.size:,} bytes")
        with self.path.open("rb") as file:
            file.seek(image.offset)
            return hashlib.sha256(file.read(image.size)).hexdigest()

    def text(self, name: str) -> bytes:
        found = self._lists[name]
        if isinstance(found, bytes):
            return found
        offset, size = found
        refuse_long_list(size, f"{name} in {self.path}")
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _add(self, member: tarfile.TarInfo, file: Any, members: Members) -> None:
        """Puts one member where it belongs: the images, the lists, or what is not used."""
        name = _plain_name(member.name)
        target = self._images.get(_plain_name(member.linkname)) if member.islnk() else None
        if target and not members.refuse(name, False):
            self._images[name] = target  # a hard link has the content of an earlier member
            return
        if member.isdir() or not name or members.refuse(name, member.issym() or member.islnk()):
            return
        if member.issparse() or not member.isreg():
            reason = "a sparse file: repack the archive without `tar -S`" if member.issparse() else "a device or pipe"
            members.ignored.append(IgnoredFile(printable(name), reason))
            return
        path = PurePosixPath(name)
        head = None if has_image_suffix(path.name) else file.read(min(HEAD_BYTES, member.size))
        if not members.is_image(name, head):
            if path.suffix.lower() in LIST_SUFFIXES:
                self._add_list(name, member, head, file)
            return
        if name in self._images:
            members.ignored.append(IgnoredFile(printable(name), "replaced by a later version in the archive"))
        version = f"{member.mtime}" if not self._compressed else self._hash_content(member, head, file)
        self._images[name] = _Image(len(self._in_spool), member.offset_data, member.size, version)
        self._in_spool.add(member.offset_data)

    def _add_list(self, name: str, member: tarfile.TarInfo, head: bytes | None, file: Any) -> None:
        if not self._compressed:
            self._lists[name] = member.offset_data, member.size
        else:
            refuse_long_list(self._kept + member.size, f"the lists in {self.path}, up to {name},")
            self._kept += member.size
            self._lists[name] = (head or b"") + _exactly(file, member.size - len(head or b""))

    def _hash_content(self, member: tarfile.TarInfo, head: bytes | None, file: Any) -> str:
        if member.size > MAX_FILE_BYTES:
            return f"{member.size} bytes"
        content = (head or b"") + _exactly(file, member.size - len(head or b""))
        if len(self._first) < _KEPT_IMAGES and len(content) <= _KEPT_BYTES:
            self._first.append(content)
        return hashlib.sha256(content).hexdigest()

    def _unpack(self, scratch: Path) -> None:
        write_spool(scratch, self._contents())

    def _contents(self) -> Iterator[bytes | UnreadableImage]:
        """Yields the images' contents in the archive's order, the replaced ones too."""
        with _one_sentence(self.path):
            for member, file in _members(self.path):
                if member.offset_data not in self._in_spool:
                    continue
                if member.size > MAX_FILE_BYTES:
                    yield UnreadableImage(f"has {member.size:,} bytes")
                else:
                    yield _exactly(file, member.size)


def is_tar_header(block: bytes, path: Path | None = None) -> bool:
    """Whether these 512 bytes are the header of a tar's member, by their checksum: old tars have no signature.

    An empty tar has only zeros; `path` tells it from other files of zeros.
    """
    if not any(block):
        return path is not None and path.suffix.lower() == ".tar"
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _plain_name(name: str) -> str:
    return name.removeprefix("./").replace("\\", "/")


class _BoundedReads:
    """A file that refuses to read a huge header at once, as a hostile archive may ask for."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_LIST_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Yields each member with the file at the start of its data."""
    size = path.stat().st_size
    opener = _OPENERS.get(file_type(_head(path)))
    with opener(path) if opener else path.open("rb") as file:
        start: int | None = 0
        while start is not None:  # `cat a.tar b.tar` makes one file of two archives
            file.seek(start)
            with tarfile.open(fileobj=_BoundedReads(file), mode="r:", errorlevel=0) as archive:  # pyright: ignore
                while (member := archive.next()) is not None:
                    archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - 200,000 take 200 MB
                    sparse = member.issparse()  # its size is that of the file, not of the data
                    if not opener and member.isreg() and not sparse and member.offset_data + member.size > size:
                        raise EOFError(f"{member.name} ends beyond the archive's end")
                    file.seek(member.offset_data)
                    yield member, file
                start = _next_archive(file, archive.offset)  # pyright: ignore[reportAttributeAccessIssue]


def _next_archive(file: Any, offset: int) -> int | None:
    """Where another archive begins in the same file, beyond the end mark of the first; None where there is none.

    Raises:
        tarfile.ReadError: the archive did not end at its end mark but at a damaged header.
    """
    file.seek(offset)
    ended = False
    while len(block := file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE:
        if not any(block):
            ended = True
        elif is_tar_header(block):
            return file.tell() - tarfile.BLOCKSIZE
        elif not ended:
            raise tarfile.ReadError(f"a damaged header at byte {file.tell() - tarfile.BLOCKSIZE:,}")
        else:
            return None
    return None


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turns the errors of reading a damaged archive into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        raise _damaged(path, error) from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: BaseException) -> UsageError:
    """Says that an archive is damaged, or which file it is where it is not a tar at all."""
    opener = _OPENERS.get(file_type(_head(path)))
    try:
        with opener(path) if opener else path.open("rb") as file:
            inner = file_type(file.read(HEAD_BYTES))
    except Exception:  # a damaged beginning
        inner = None
    if opener and inner is not None and inner.family != "archive" and "tar" not in inner.name:
        kind = file_type(_head(path)).name
        return UsageError(f"{path} is {kind} that holds {inner.name}, not a tar archive: unpack it and give the folder")
    if advice := part_advice(path, file_type(_head(path))):
        return UsageError(f"{path} {advice}")
    reason = printable(first_line(error))
    return UsageError(f"{path} is not a whole tar archive: it was cut short or damaged ({reason}); download it again")


def _exactly(file: Any, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("unexpected end of data")
    return content


def _status(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _head(path: Path) -> bytes:
    try:
        return read_head(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
