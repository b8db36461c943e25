"""A folder or an archive with image files in it: listed once, then read by many workers."""

from __future__ import annotations

import hashlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from preprocess.containers.file_kinds import (
    SYSTEM_REASON,
    has_image_suffix,
    ignored_file,
    ignored_folder,
    printable,
    refuse_file,
    type_of,
    unread_picture,
    why_ignored,
)
from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.decode import Decoder
from preprocess.images.file_types import PARQUET, TEXT, ZIP, file_type
from preprocess.shards.manifest import LeftOut

MAX_LIST_BYTES = 1 << 26  # of an annotation file; CelebA's longest has 27 MB
MAX_FILE_BYTES = 1 << 28  # no photograph has more; a hostile archive member may claim any size


@dataclass(frozen=True)
class IgnoredFile:
    """A file (or `files` of a folder) that is not an image of the source; a folder's name ends with a slash."""

    name: str
    reason: str
    files: int = 1


class PixelReader(Protocol):
    """Reads the pixels of one shard's images. It is picklable, and opens its files in the worker."""

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        """Yields uint8 (h, w, C) for each image, valid until the next one; or the reason why it cannot be read."""
        ...


class FileReader(ABC):
    """A `PixelReader` of image files, each (h, w, 3)."""

    @abstractmethod
    def files(self) -> Iterator[bytes | UnreadableImage]:
        """Yields the files' contents, in order."""

    def pixels(self) -> Iterator[np.ndarray | UnreadableImage]:
        return decoded(self.files())


def decoded(files: Iterator[bytes | UnreadableImage]) -> Iterator[np.ndarray | UnreadableImage]:
    """Decodes files one after the other: uint8 (h, w, 3), valid until the next, or the reason why not."""
    decoder = Decoder()
    for content in files:
        try:
            yield content if isinstance(content, UnreadableImage) else decoder.rgb(content)
        except UnreadableImage as reason:
            yield reason


class Container(ABC):
    """A folder or archive with image files in it."""

    lists: Collection[str] = ()  # names of the lists (.txt, .csv) inside an archive; those of a folder are files
    unpack: Callable[[Path], None] | None = None  # puts what `reader` needs into the scratch folder, if it needs that
    stamp = 0  # a number, of this machine only, that changes when an image is written again with its old size

    def __init__(self, path: Path) -> None:
        """Starts without images."""
        self.path = path
        self.names: list[str] = []  # of the image files, relative to the path, with slashes, sorted
        self._images: dict[str, tuple[str, Any]] = {}  # for each a text that changes when it does, and where it lies
        self.left_out: list[LeftOut] = []  # pictures that cannot be used
        self.ignored: list[IgnoredFile] = []  # other files
        self.notes: list[str] = []  # lines for the terminal

    def identity(self) -> Iterator[tuple[str, str]]:
        """Yields each image's name and version (size, checksum), then an archive's pictures that are left out."""
        yield from ((name, self._images[name][0]) for name in self.names)
        if self.path.is_file():
            yield from (("refused", left.key) for left in self.left_out)

    @abstractmethod
    def list_again(self) -> Container:
        """Returns the same folder or archive as it is now."""

    def refingerprint(self, fingerprint: Callable[[Container], str]) -> str:
        """Returns the fingerprint as it is now, or another text where a file was written again with its old size."""
        again = self.list_again()
        return fingerprint(again) if again.stamp == self.stamp else "written again"

    @abstractmethod
    def reader(self, names: Sequence[str], scratch: Path) -> FileReader:
        """Returns what reads chosen images in a worker, after `unpack` where there is one."""

    def first_pixels(self, count: int) -> Iterator[np.ndarray | UnreadableImage]:
        """Yields the pixels of some of the first images."""
        return self.reader(self.names[:count], self.path).pixels()

    def content_hash(self, name: str) -> str:
        """Returns the SHA-256 of an image file's content, as 64 hex digits.

        Raises:
            OSError: When an archive can no longer be opened.
            UnreadableImage: When the file cannot be read.
        """
        (content,) = self.reader([name], self.path).files()
        if isinstance(content, UnreadableImage):
            raise content
        return hashlib.sha256(content).hexdigest()

    def text(self, name: str) -> bytes:
        """Returns the content of one of `lists`.

        Raises:
            KeyError: When there is no list of this name.
        """
        raise KeyError(name)

    def _ignore(self, name: str, reason: str, files: int = 1) -> None:
        self.ignored.append(IgnoredFile(printable(name), reason, files))

    def _is_image(self, name: str, head: bytes) -> bool:
        """Whether a file is an image by its first bytes; otherwise it is counted as what it is."""
        found = file_type(head)
        if reason := unread_picture(name, found):
            self.left_out.append(LeftOut(key=file_key(name), reason=reason))
        elif found.family == "picture":
            return True
        else:
            self._ignore(name, why_ignored(found))
        return False

    def _refuse(self, name: str, link: bool) -> bool:
        """Whether a member of an archive is not read for its name or because it is a link; it is then counted."""
        member = PurePosixPath(name)
        if (reason := _unsafe_reason(member, link)) and (has_image_suffix(member.name) or not link):
            self.left_out.append(LeftOut(key=printable(name)[:100], reason=reason))
        elif reason := reason or next(filter(None, map(ignored_folder, member.parts[:-1])), ignored_file(member.name)):
            self._ignore(name, reason)
        return bool(reason)


def open_container(path: Path, deep: bool) -> Container:
    """Lists the images of a folder (and of the folders below it if `deep`), a zip archive or a tar archive.

    Raises:
        UsageError: it does not exist, is damaged, or is another kind of file; the message says what helps.
    """
    from preprocess.containers.folder import FolderContainer  # noqa: PLC0415 - they import this file
    from preprocess.containers.tar_archive import TarContainer, is_tar  # noqa: PLC0415
    from preprocess.containers.zip_archive import ZipContainer  # noqa: PLC0415

    if path.is_dir():
        return FolderContainer(path, deep)
    if type_of(path) is ZIP:
        return ZipContainer(path)
    if is_tar(path):
        return TarContainer(path)
    raise refuse_file(path)


def _unsafe_reason(member: PurePosixPath, link: bool) -> str:
    """Why a member is not read, or "". No name is used as a path, but a regular archive has neither."""
    if member.is_absolute() or ".." in member.parts:
        return "a name that leaves the archive's folder: repack the archive with relative names"
    return "a link: repack the archive with the files themselves (tar -h)" if link else ""


def file_key(name: str) -> str:
    """The key of a file that never becomes a sample: it has a dot or a slash, which no sample's key has."""
    text = printable(name)
    return text if "." in text or "/" in text else f"./{text}"


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def refuse_long_list(size: int, where: str) -> None:
    """Refuses an annotation file that is too large to be one.

    Args:
        size: in bytes.
        where: names the file in the message.

    Raises:
        UsageError: When it has more than MAX_LIST_BYTES.
    """
    if size > MAX_LIST_BYTES:
        raise UsageError(f"{where} has more than {MAX_LIST_BYTES:,} bytes: an annotation file is smaller; remove it")


def no_images(source: Container, wanted: str = "", looked_for: str = "") -> UsageError:
    """Says that a source has no images (`wanted`: of a kind), what it has instead, and what was looked for."""
    kinds: dict[str, tuple[str, int]] = {}
    for file in (*(IgnoredFile(left.key, left.reason) for left in source.left_out), *source.ignored):
        first, count = kinds.get(file.reason, (file.name, 0))
        kinds[file.reason] = first, count + file.files
    if PARQUET.name in kinds:
        command = f"`preprocess celeba --source {shlex.quote(str(source.path))}`"
        return UsageError(f"{source.path} holds parquet files: make shards of them with {command}")
    dull = (TEXT.name, SYSTEM_REASON, "a hidden file")
    some = [
        f"{first} {'' if reason.startswith('cannot') else 'is '}{reason}" + (f" (and {n - 1:,} more)" if n > 1 else "")
        for reason, (first, n) in sorted(kinds.items(), key=lambda kind: ("unpack" not in kind[0]) + (kind[0] in dull))
    ]
    contents = ", ".join(some[:3]) or "it is empty"
    return UsageError(f"{source.path} holds no images{wanted}: {contents}{looked_for}")
