"""A folder of image files, or the whole tree below it. Links are followed, and no folder is read twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.containers.container import MAX_FILE_BYTES, IgnoredFile, PixelReader, decoded, file_key, printable
from preprocess.containers.file_kinds import (
    has_image_suffix,
    ignored_file,
    ignored_folder,
    read_head,
    unread_picture,
    why_ignored,
)
from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.file_types import file_type
from preprocess.shards.manifest import LeftOut

_USUAL_FILE_BYTES = 1 << 16


@dataclass
class FolderListing:
    """The files of a folder.

    Attributes:
        images: relative name -> (bytes, time of change in ns), sorted by name.
        left_out: pictures that cannot be used.
        ignored: files that are not pictures, and pictures of the operating system.
    """

    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)


def list_folder(top: Path, deep: bool) -> FolderListing:
    """Lists the images of a folder, or of the whole tree below it.

    Real folders come before links, so that an image keeps its own name where a link leads to it as well.

    Raises:
        UsageError: a folder cannot be read.
    """
    listing = FolderListing()
    waiting, links = [(str(top), "")], []
    seen: dict[tuple[int, int], str] = {}
    while waiting or links:
        if not waiting:
            links.sort(reverse=True)
            waiting.append(links.pop()[::-1])
        folder, prefix = waiting.pop()  # not by recursion: folders may lie a thousand deep
        identity = _identity(folder)
        if identity in seen:
            listing.ignored.append(IgnoredFile(printable(prefix), "a link to a folder that is read already"))
            continue
        seen[identity] = prefix
        for entry in scan(folder):
            name = prefix + entry.name
            if not is_folder(entry):
                _add_file(listing, name, entry)
            elif entry.is_symlink() and os.path.realpath(folder).startswith(os.path.realpath(entry.path)):  # noqa: PTH
                listing.ignored.append(IgnoredFile(printable(name) + "/", "a link to a folder that is read already"))
            elif reason := ignored_folder(entry.name) or ("" if deep else "a folder inside the folder of images"):
                listing.ignored.append(IgnoredFile(printable(name) + "/", reason, count_files(entry.path)))
            elif entry.is_symlink():
                links.append((f"{name}/", entry.path))
            else:
                waiting.append((entry.path, f"{name}/"))
    listing.images = dict(sorted(listing.images.items()))
    return listing


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads in a circle is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def count_files(folder: str) -> int:
    """How many files lie in a folder and below it; links to folders are not followed."""
    return sum(len(files) for _, _, files in os.walk(folder))


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    return status.st_dev, status.st_ino


def _add_file(listing: FolderListing, name: str, entry: os.DirEntry[str]) -> None:
    """Puts one file where it belongs: the images, what is left out, or what is ignored."""
    try:
        regular = entry.is_file()
        if reason := ignored_file(entry.name):
            listing.ignored.append(IgnoredFile(printable(name), reason))
        elif not regular and entry.is_symlink():
            target = printable(os.readlink(entry.path))  # noqa: PTH115
            listing.left_out.append(LeftOut(key=file_key(name), reason=f"a link to {target}, which does not exist"))
        elif not regular:
            listing.ignored.append(IgnoredFile(printable(name), "a pipe, socket or device"))
        elif has_image_suffix(entry.name):
            _add_image(listing, name, entry)
        else:
            found = file_type(read_head(entry.path))
            if reason := unread_picture(entry.name, found):
                listing.left_out.append(LeftOut(key=file_key(name), reason=reason))
            elif found.family == "picture":
                _add_image(listing, name, entry)
            else:
                listing.ignored.append(IgnoredFile(printable(name), why_ignored(found)))
    except OSError as error:
        listing.left_out.append(LeftOut(key=file_key(name), reason=f"cannot be read: {error.strerror}"))


def _add_image(listing: FolderListing, name: str, entry: os.DirEntry[str]) -> None:
    status = entry.stat()
    listing.images[name] = status.st_size, status.st_mtime_ns


class FolderContainer:
    """The images directly inside one folder, or of the whole tree below it. A `Container`."""

    def __init__(self, path: Path, deep: bool = False) -> None:
        """Lists the folder.

        Args:
            path: of the folder.
            deep: whether images in folders below it count.

        Raises:
            UsageError: a folder cannot be read.
        """
        listing = list_folder(path, deep)
        self.path = path
        self.names = list(listing.images)
        self.left_out, self.ignored = listing.left_out, listing.ignored
        self.notes: list[str] = []
        self.unpack: Callable[[Path], None] | None = None
        self._images, self._deep = listing.images, deep

    def identity(self) -> Iterator[tuple[str, str]]:
        """Yields each image's name, and a text that changes when the image does."""
        return ((name, f"{size}") for name, (size, _) in self._images.items())

    def stamp(self) -> int:
        """Returns a number that changes when an image is written again with the same name and size."""
        return hash(tuple(changed for _, changed in self._images.values()))

    def list_again(self) -> FolderContainer:
        """Returns the folder as it is now."""
        return FolderContainer(self.path, self._deep)

    def reader(self, names: Sequence[str], scratch: Path) -> PixelReader:
        """Returns a reader of chosen images."""
        del scratch
        return FolderImages(str(self.path.resolve()), list(names))

    def first_pixels(self, count: int) -> Iterator[np.ndarray | UnreadableImage]:
        """Yields the pixels of some of the first images."""
        return FolderImages(str(self.path), self.names[:count]).pixels()

    def content_hash(self, name: str) -> str:
        """Returns the SHA-256 of an image file's content."""
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    lists: Sequence[str] = ()

    def text(self, name: str) -> bytes:
        """Never called: a folder's lists are files."""
        raise KeyError(name)


@dataclass(frozen=True)
class FolderImages:
    """Files of one folder."""

    folder: str
    names: list[str]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.names)

    def files(self) -> Iterator[bytes | UnreadableImage]:
        """Yields the files' contents, in order."""
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
        """Yields uint8 (h, w, 3) for each image, or the reason why it cannot be read."""
        return decoded(self.files())


def _whole_file(handle: int) -> bytes | UnreadableImage:
    content = os.read(handle, _USUAL_FILE_BYTES)
    if len(content) < _USUAL_FILE_BYTES:
        return content  # without asking for the size: a fifth of the time that reading a portrait takes
    size = os.fstat(handle).st_size
    if size > MAX_FILE_BYTES:
        return UnreadableImage(f"has {size:,} bytes")
    return content + os.read(handle, size - len(content))
