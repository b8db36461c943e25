"""Tar archives of image files, plain or compressed by gzip, bzip2 or xz. Nothing is unpacked by its path.

A plain tar is read at random. A compressed one is read in order: once to list it, and once into a spool.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import itertools
import lzma
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.containers.container import (
    MAX_FILE_BYTES,
    MAX_LIST_BYTES,
    Container,
    FileReader,
    decoded,
    refuse_long_list,
)
from preprocess.containers.file_kinds import (
    LIST_SUFFIXES,
    has_image_suffix,
    part_advice,
    printable,
    read_head,
    suffix_of,
    type_of,
)
from preprocess.containers.spool import SpanImages, SpoolImages, write_spool
from preprocess.errors import UnreadableImage, UsageError, first_line
from preprocess.images.file_types import BZIP2, GZIP, HEAD_BYTES, LZMA, TAR, UNKNOWN, XZ, file_type

_OPENERS = {GZIP: gzip.open, BZIP2: bz2.open, XZ: lzma.open, LZMA: lzma.open}


class TarContainer(Container):
    """The images of a tar archive."""

    def __init__(self, path: Path) -> None:
        """Lists the archive, a compressed one to its end.

        Raises:
            UsageError: When it is damaged, cut short or not a tar.
        """
        super().__init__(path)
        self.stamp = _stamp(path)
        self._compressed = type_of(path) in _OPENERS
        self.unpack = (lambda scratch: write_spool(scratch, self._contents())) if self._compressed else None
        self.lists = self._lists = dict[str, tuple[int, int] | bytes]()
        self._list_bytes = 0
        end = 0
        with _one_sentence(path):
            for member, file in _members(path):
                self._add(member, file)
                end = member.offset_data + member.size
        has_end = self._compressed or end + tarfile.BLOCKSIZE <= path.stat().st_size  # compressed: by its checksum
        if not has_end:
            self.notes.append(f"{path} has no end mark: it may have been cut short after {len(self._images):,} images")
        self.names = sorted(self._images)
        spans = {span for _, span in self._images.values()}  # where an image begins, and its size
        self._numbers = {span: number for number, span in enumerate(sorted(spans))}

    def list_again(self) -> TarContainer:
        """Returns the archive as it is now; it is read again only if the file has changed."""
        return self if self.stamp == _stamp(self.path) else TarContainer(self.path)

    def reader(self, names: Sequence[str], scratch: Path) -> FileReader:
        spans = [self._images[name][1] for name in names]
        if self._compressed:
            return SpoolImages(str(scratch), [self._numbers[span] for span in spans])
        return SpanImages(str(self.path.resolve()), np.array(spans, np.int64).reshape(-1, 2))

    def first_pixels(self, count: int) -> Iterator[np.ndarray | UnreadableImage]:
        if self._compressed:  # its beginning is read again
            return decoded(itertools.islice(self._contents(), count))
        return super().first_pixels(count)

    def content_hash(self, name: str) -> str:
        return self._images[name][0].partition("\0")[2] if self._compressed else super().content_hash(name)

    def text(self, name: str) -> bytes:
        found = self._lists[name]
        if isinstance(found, bytes):
            return found
        refuse_long_list(found[1], f"{name} in {self.path}")
        with self.path.open("rb") as file:
            file.seek(found[0])
            return file.read(found[1])

    def _add(self, member: tarfile.TarInfo, file: Any) -> None:
        """Puts one member where it belongs: the images, the lists, or what is not used."""
        name, first_name = _plain_name(member.name), _plain_name(member.linkname)
        same = member.islnk() and first_name in self._images  # a hard link has the content of an earlier member
        link = member.issym() or (member.islnk() and not same)
        if member.isdir() or not name or self._refuse(name, link):
            return
        if same:
            self._images[name] = self._images[first_name]
        elif member.issparse():
            self._ignore(name, "a sparse file: repack the archive without `tar -S`")
        elif not member.isreg():
            self._ignore(name, "a device or pipe")
        else:
            self._add_file(name, member, file)

    def _add_file(self, name: str, member: tarfile.TarInfo, file: Any) -> None:
        content = _exactly(file, min(member.size, MAX_FILE_BYTES if self._compressed else HEAD_BYTES))
        if has_image_suffix(name.rpartition("/")[2]) or self._is_image(name, content[:HEAD_BYTES]):
            if name in self._images:
                self._ignore(name, "replaced by a later version in the archive")
            version = hashlib.sha256(content).hexdigest() if self._compressed else f"{member.mtime}"
            self._images[name] = f"{member.size}\0{version}", (member.offset_data, member.size)
        elif suffix_of(name) in LIST_SUFFIXES:
            self._lists[name] = content if self._compressed else (member.offset_data, member.size)
            self._list_bytes += member.size if self._compressed else 0
            refuse_long_list(self._list_bytes, f"the lists in {self.path}, up to {name},")

    def _contents(self) -> Iterator[bytes | UnreadableImage]:
        """Yields the images' contents in the archive's order."""
        with _one_sentence(self.path):
            for member, file in _members(self.path):
                if (member.offset_data, member.size) in self._numbers:
                    large = member.size > MAX_FILE_BYTES
                    yield UnreadableImage(f"has {member.size:,} bytes") if large else _exactly(file, member.size)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive or compressed. Old tars have no signature, and empty ones only a suffix."""
    head = read_head(path)
    found = file_type(head)
    if found is UNKNOWN:
        return _is_header(head) or (path.suffix.lower() == ".tar" and not any(head))
    return found is TAR or found in _OPENERS


def _is_header(block: bytes) -> bool:
    """Whether these 512 bytes are the header of a tar's member, by their checksum."""
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


def _open(path: Path) -> Any:
    opener = _OPENERS.get(type_of(path))
    return opener(path) if opener else path.open("rb")


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Yields each member with the file at the start of its data."""
    end = math.inf if type_of(path) in _OPENERS else path.stat().st_size
    with _open(path) as file:
        start: int | None = 0
        while start is not None:  # `cat a.tar b.tar` makes one file of two archives
            file.seek(start)
            with tarfile.open(fileobj=_BoundedReads(file), mode="r:", errorlevel=0) as archive:  # pyright: ignore
                while (member := archive.next()) is not None:
                    archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - 200,000 take 200 MB
                    # the size of a sparse member is that of the file, not of the data
                    if member.isreg() and not member.issparse() and member.offset_data + member.size > end:
                        raise EOFError(f"{member.name} ends beyond the archive's end")
                    file.seek(member.offset_data)
                    yield member, file
                start = _next_archive(file, archive.offset)  # pyright: ignore[reportAttributeAccessIssue]


def _next_archive(file: Any, offset: int) -> int | None:
    """Where another archive begins in the same file, beyond the end mark of the first; None where there is none."""
    file.seek(offset)
    ended = False
    while len(block := file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE:
        if not any(block):
            ended = True
        elif _is_header(block):
            return file.tell() - tarfile.BLOCKSIZE
        elif ended:
            return None
        else:
            raise tarfile.ReadError(f"a damaged header at byte {file.tell() - tarfile.BLOCKSIZE:,}")
    return None


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turns the errors of reading a damaged archive into a UsageError that names it."""
    try:
        yield
    except (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        raise UsageError(f"{path} {_damage(path, error)}") from None


def _damage(path: Path, error: Exception) -> str:
    """Says that an archive is damaged, or what the file is where it is not a tar at all."""
    found = type_of(path)
    with contextlib.suppress(Exception), _open(path) as file:  # its beginning may be damaged
        inner = file_type(file.read(HEAD_BYTES))
        if found in _OPENERS and inner.family != "archive":
            return f"is {found.name} that holds {inner.name}, not a tar archive: unpack it and give the folder"
    reason = printable(first_line(error))
    damage = f"is not a whole tar archive: it was cut short or damaged ({reason}); download it again"
    return part_advice(path, found) or damage


def _exactly(file: Any, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("unexpected end of data")
    return content


def _stamp(path: Path) -> int:
    status = path.stat()
    return hash((status.st_size, status.st_mtime_ns))
