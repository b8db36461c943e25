"""A container: a folder or an archive with image files in it, listed once and read by many workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from preprocess.errors import UnreadableImage, UsageError
from preprocess.images.decode import Decoder
from preprocess.shards.manifest import LeftOut

MAX_LIST_BYTES = 1 << 26  # of an annotation file; CelebA's longest has 27 MB
MAX_FILE_BYTES = 1 << 28  # no photograph has more; a hostile archive member may claim any size


@dataclass(frozen=True)
class IgnoredFile:
    """A file, or a folder of files, that is not used because it is not an image of the source.

    Attributes:
        name: relative to the source, printable; a folder's ends with a slash.
        reason: why, for messages.
        files: how many files this entry counts.
    """

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
        """Yields uint8 (h, w, 3) for each image, or the reason why it cannot be read."""
        return decoded(self.files())


class Container(ABC):
    """A folder or archive with image files in it.

    Attributes:
        path: of the folder or archive.
        names: the image files' names relative to it, with slashes, sorted.
        left_out: pictures in it that cannot be used.
        ignored: its other files.
        notes: lines for the terminal.
        unpack: puts what `reader` needs into the scratch folder; None where images can be read at random.
        lists: names of the lists (.txt, .csv) inside an archive; none of a folder, whose lists are files.
    """

    def __init__(self, path: Path) -> None:
        """Starts without images."""
        self.path = path
        self.names: list[str] = []
        self.left_out: list[LeftOut] = []
        self.ignored: list[IgnoredFile] = []
        self.notes: list[str] = []
        self.unpack: Callable[[Path], None] | None = None
        self.lists: Collection[str] = ()

    @abstractmethod
    def identity(self) -> Iterable[tuple[str, str]]:
        """Yields each image's name, and a text that changes when the image does (size, checksum)."""

    def stamp(self) -> int:
        """Returns a number, of this machine only, that changes when an image is written again with its old size."""
        return 0

    @abstractmethod
    def list_again(self) -> Container:
        """Returns the same folder or archive as it is now."""

    @abstractmethod
    def reader(self, names: Sequence[str], scratch: Path) -> PixelReader:
        """Returns what reads the pixels of chosen images in a worker."""

    def first_pixels(self, count: int) -> Iterator[np.ndarray | UnreadableImage]:
        """Yields the pixels of some of the first images."""
        return self.reader(self.names[:count], self.path).pixels()

    @abstractmethod
    def content_hash(self, name: str) -> str:
        """Returns the SHA-256 of an image file's content. Raises OSError or UnreadableImage."""

    def text(self, name: str) -> bytes:
        """Returns the content of one of `lists`."""
        raise KeyError(name)


def refuse_long_list(size: int, where: str) -> None:
    """Raises UsageError where an annotation file is too large to be one."""
    if size > MAX_LIST_BYTES:
        raise UsageError(f"{where} has more than {MAX_LIST_BYTES:,} bytes: an annotation file is smaller; remove it")


def counted(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_key(name: str) -> str:
    """The key of a file that never becomes a sample: it has a dot or a slash, which no sample's key has."""
    text = printable(name)
    return text if "." in text or "/" in text else f"./{text}"


def printable(name: str) -> str:
    """A name with escapes for bytes that are not UTF-8 and for characters that would control a terminal."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def decoded(files: Iterator[bytes | UnreadableImage]) -> Iterator[np.ndarray | UnreadableImage]:
    """Decodes files one after the other: uint8 (h, w, 3), valid until the next, or the reason why not."""
    decoder = Decoder()
    for content in files:
        try:
            yield content if isinstance(content, UnreadableImage) else decoder.rgb(content)
        except UnreadableImage as reason:
            yield reason
