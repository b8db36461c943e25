"""A folder of image files, or the whole tree below it. Links are followed, and no folder is read twice."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.containers.container import (
    MAX_FILE_BYTES,
    Container,
    FileReader,
    IgnoredFile,
    PixelReader,
    file_key,
    printable,
)
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


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of a folder.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        remedy = (
            "make it readable for you, or move it away" if error.errno == errno.EACCES else "check the disk or network"
        )
        raise UsageError(f"{folder} cannot be read: {error.strerror}; {remedy}") from None


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


class FolderContainer(Container):
    """The images directly inside one folder, or of the whole tree below it."""

    def __init__(self, path: Path, deep: bool = False) -> None:
        """Lists the folder, and the folders below it if `deep`.

        Real folders come before links, so that an image keeps its own name where a link leads to it as well.

        Raises:
            UsageError: a folder cannot be read.
        """
        super().__init__(path)
        self._deep = deep
        self._images: dict[str, tuple[int, int]] = {}  # relative name -> bytes, time of change in ns
        self._list(path, deep)
        self._images = dict(sorted(self._images.items()))
        self.names = list(self._images)

    def _list(self, top: Path, deep: bool) -> None:
        waiting, links = [(str(top), "")], []
        seen: dict[tuple[int, int], str] = {}
        while waiting or links:
            if not waiting:
                links.sort(reverse=True)
                waiting.append(links.pop()[::-1])
            folder, prefix = waiting.pop()  # not by recursion: folders may lie a thousand deep
            identity = _identity(folder)
            if identity in seen:
                self.ignored.append(IgnoredFile(printable(prefix), "a link to a folder that is read already"))
                continue
            seen[identity] = prefix
            entries = scan(folder)
            if not entries and prefix:
                self.ignored.append(IgnoredFile(printable(prefix), "an empty folder"))
            for entry in entries:
                name = prefix + entry.name
                if not is_folder(entry):
                    self._add_file(name, entry)
                elif not deep and entry.is_symlink() and top.resolve().is_relative_to(Path(entry.path).resolve()):
                    self.ignored.append(IgnoredFile(printable(name) + "/", "a link to a folder above"))
                elif reason := ignored_folder(entry.name) or ("" if deep else "a folder inside the folder of images"):
                    self.ignored.append(IgnoredFile(printable(name) + "/", reason, count_files(entry.path)))
                elif entry.is_symlink():
                    links.append((f"{name}/", entry.path))
                else:
                    waiting.append((entry.path, f"{name}/"))

    def _add_file(self, name: str, entry: os.DirEntry[str]) -> None:
        """Puts one file where it belongs: the images, what is left out, or what is ignored."""
        try:
            regular = entry.is_file()
            if reason := ignored_file(entry.name):
                self.ignored.append(IgnoredFile(printable(name), reason))
            elif not regular and entry.is_symlink():
                target = printable(os.readlink(entry.path))  # noqa: PTH115
                self.left_out.append(LeftOut(key=file_key(name), reason=f"a link to {target}, which does not exist"))
            elif not regular:
                self.ignored.append(IgnoredFile(printable(name), "a pipe, socket or device"))
            elif has_image_suffix(entry.name):
                self._add_image(name, entry)
            else:
                found = file_type(read_head(entry.path))
                if reason := unread_picture(entry.name, found):
                    self.left_out.append(LeftOut(key=file_key(name), reason=reason))
                elif found.family == "picture":
                    self._add_image(name, entry)
                else:
                    self.ignored.append(IgnoredFile(printable(name), why_ignored(found)))
        except OSError as error:
            self.left_out.append(LeftOut(key=file_key(name), reason=f"cannot be read: {error.strerror}"))

    def _add_image(self, name: str, entry: os.DirEntry[str]) -> None:
        status = entry.stat()
        self._images[name] = status.st_size, status.st_mtime_ns

    def identity(self) -> Iterator[tuple[str, str]]:
        return ((name, f"{size}") for name, (size, _) in self._images.items())

    def stamp(self) -> int:
        return hash(tuple(changed for _, changed in self._images.values()))

    def list_again(self) -> FolderContainer:
        return FolderContainer(self.path, self._deep)

    def reader(self, names: Sequence[str], scratch: Path) -> PixelReader:
        del scratch
        return FolderImages(str(self.path.resolve()), list(names))

    def content_hash(self, name: str) -> str:
        with (self.path / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class FolderImages(FileReader):
    """Files of one folder."""

    folder: str
    names: list[str]

    def files(self) -> Iterator[bytes | UnreadableImage]:
        for name in self.names:
            try:
                handle = os.open(f"{self.folder}/{name}", os.O_RDONLY)  # a third of pathlib's time
                try:
                    yield _whole_file(handle)
                finally:
                    os.close(handle)
            except OSError as error:
                yield UnreadableImage(f"cannot be read: {error.strerror}")


def _whole_file(handle: int) -> bytes | UnreadableImage:
    content = os.read(handle, _USUAL_FILE_BYTES)
    if len(content) < _USUAL_FILE_BYTES:
        return content  # without asking for the size: a fifth of the time that reading a portrait takes
    size = os.fstat(handle).st_size
    if size > MAX_FILE_BYTES:
        return UnreadableImage(f"has {size:,} bytes")
    return content + os.read(handle, size - len(content))
