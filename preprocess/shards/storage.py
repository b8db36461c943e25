"""The files of a set of shards, in a folder or behind an fsspec URL (s3://, gs://, file://): listed and read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from preprocess.choices import MANIFEST_NAME
from preprocess.errors import UsageError, UserError, first_line
from preprocess.shards.manifest import Manifest


class ShardFiles:
    """A folder or URL with a set of shards in it; `fs` is its fsspec file system."""

    def __init__(self, address: str) -> None:
        """Connects to a folder or URL; nothing is read yet.

        Raises:
            UsageError: the URL cannot be used, or the library for it is not installed.
            UserError: the service cannot be reached.
        """
        self.name = address.rstrip("/") or address  # as the user wrote it
        self.folder = None if _is_url(address) else Path(address)
        self.fs, root = _file_system(address)
        self._root = root.rstrip("/")

    def manifest(self) -> Manifest:
        """Reads the manifest.

        Raises:
            ManifestError: there is no usable manifest.
            UserError: the URL cannot be reached.
        """
        if self.folder is not None:
            return Manifest.read(self.folder)
        with reported(self.name, "cannot be read", "check that the address is right and can be reached"):
            content = self.read(MANIFEST_NAME)
        return Manifest.parse(content, f"{self.name}/{MANIFEST_NAME}")

    def names(self, folder: str = "") -> list[str]:
        """Returns the names directly in `folder` below the address, sorted; none where there is no such folder."""
        self.fs.invalidate_cache()  # of listings: another machine may have written since
        try:
            paths = self.fs.ls(self.path(folder).rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in paths if (name := path.rstrip("/").rsplit("/", 1)[-1]))

    def open(self, name: str) -> IO[bytes]:
        """Opens one file for reading.

        Raises:
            FileNotFoundError: When there is no such file. The library behind a URL may raise other errors.
        """
        return self.fs.open(self.path(name), "rb")

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file; None where there is no such file."""
        self.fs.invalidate_cache()
        try:
            return self.fs.cat_file(self.path(name))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def path(self, name: str) -> str:
        """Returns the path of a file below the address, in the notation of the file system."""
        return f"{self._root}/{name}"


def open_shard_files(address: str) -> ShardFiles:
    """Opens the folder or URL of an existing set of shards.

    Raises:
        UsageError: there is no such folder, or the URL cannot be used.
        UserError: the service behind the URL cannot be reached.
    """
    if not _is_url(address) and not Path(address).is_dir():
        raise UsageError(f"{address} is not a folder of shards")
    return ShardFiles(address)


@contextlib.contextmanager
def reported(name: str, failure: str, remedy: str) -> Iterator[None]:
    """Turns an error of a file system's library (no network, no permission, no such bucket) into one sentence.

    Args:
        name: the address, for the message.
        failure: what failed, such as "cannot be read".
        remedy: what to do next.

    Raises:
        UserError: in place of the library's error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: {failure} ({first_line(error)}); {remedy}") from error


def _is_url(address: str) -> bool:
    return "://" in address


def _file_system(address: str) -> tuple[Any, str]:
    """Returns the fsspec file system of an address, and the path in it."""
    import fsspec.core  # noqa: PLC0415 - takes a while to import, and only some commands need it

    if not _is_url(address):
        return fsspec.filesystem("file"), str(Path(address).absolute())
    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{address} cannot be used: {first_line(error)}") from None
    except Exception as error:  # some libraries look for the service or its credentials at once
        raise UserError(f"{address} cannot be reached: {first_line(error)}") from None
