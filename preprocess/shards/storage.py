"""The files of a set of shards, in a folder or behind an fsspec URL (s3://, gs://, file://): listed and read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from preprocess.errors import ManifestError, UsageError, UserError
from preprocess.shards.manifest import MANIFEST_NAME, Manifest


class ShardFiles(Protocol):
    """A place with a set of shards in it."""

    name: str  # as a person wrote it

    def manifest(self) -> Manifest:
        """Raises ManifestError where there is no usable manifest, UserError where the place cannot be reached."""
        ...

    def names(self) -> list[str]:
        """Everything that lies directly there, sorted."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """One file, to be read from its start. Raises FileNotFoundError, or whatever the place's library does."""
        ...


def open_shard_files(place: str) -> ShardFiles:
    """The place that a person names: a folder, or a URL.

    Raises:
        UsageError: there is no such folder, or the URL cannot be used.
    """
    if is_url(place):
        return RemoteFiles(place)
    if not Path(place).is_dir():
        raise UsageError(f"{place} is not a folder of shards")
    return LocalFiles(Path(place))


class LocalFiles:
    """Shards in a folder."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path

    def manifest(self) -> Manifest:
        return Manifest.read(self.path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class RemoteFiles:
    """Shards behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self.fs, root = _file_system(url)
        self.root = root.rstrip("/")

    def manifest(self) -> Manifest:
        with explained(self.name, "cannot be read", "see that the address is right and can be reached"):
            content = self.read(MANIFEST_NAME)
        where = f"{self.name}/{MANIFEST_NAME}"
        if content is None:
            raise ManifestError(
                f"{where} does not exist: {self.name} holds no finished shards; make them with `preprocess celeba`"
            )
        return Manifest.parse(content, where)

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder below the URL, sorted; nothing where there is no such folder."""
        self.fs.invalidate_cache()  # of listings: another machine may have written since
        try:
            paths = self.fs.ls(self.path(folder).rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in paths if (name := path.rstrip("/").rsplit("/", 1)[-1]))

    def open(self, name: str) -> IO[bytes]:
        return self.fs.open(self.path(name), "rb")

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where there is none."""
        self.fs.invalidate_cache()
        try:
            return self.fs.cat_file(self.path(name))
        except FileNotFoundError:
            return None

    def path(self, name: str) -> str:
        """Where a file below the URL is, as the file system counts."""
        return f"{self.root}/{name}"

    def protocols(self) -> set[str]:
        """What the file system calls itself: "file", "s3", …"""
        protocol = self.fs.protocol
        return {protocol} if isinstance(protocol, str) else set(protocol)


def is_url(place: str) -> bool:
    """Whether a place is behind a URL."""
    return "://" in place


@contextlib.contextmanager
def explained(name: str, what: str, remedy: str) -> Iterator[None]:
    """One sentence for whatever a file system's library raises: no network, no permission, no such bucket.

    Raises:
        UserError: in place of what was raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: {what} ({one_line(error)}); {remedy}") from error


def one_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(f"{url} needs fsspec: pip install 'mmd-vlae[remote]'") from None
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url} cannot be used: {one_line(error)}") from None
    except Exception as error:  # some libraries look for the service or its credentials at once
        raise UserError(f"{url} cannot be reached: {one_line(error)}") from None
