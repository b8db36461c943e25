"""Where shards come from: a folder, or an address from which they are streamed.

An address is a URL that ends where the file names begin (``https://host/shards``, ``gs://bucket/shards``,
``s3://bucket/shards``), or a command, ``pipe:ssh host cat /shards/{}``, in which ``{}`` stands for the file's name.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import fsspec
from webdataset.gopen import gopen, gopen_schemes, set_options

from pipeline.data.mapped import LoaderError
from preprocess.shards.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Shard
from preprocess.shards.reader import ShardSet

_NO_ERROR = [0, -13, 141, 23]  # a program that ends because its reader has enough did not fail
_ADDRESS = re.compile(r"^([a-z][a-z0-9+]+):(//)?", re.IGNORECASE)


def is_address(path: str) -> bool:
    """Whether ``path`` names something else than a folder of this machine."""
    return _ADDRESS.match(path) is not None and not Path(path).exists()


@dataclass(frozen=True)
class ShardSource:
    """A finished set of shards, wherever it is. ``local`` is None where it can only be streamed."""

    address: str
    manifest: Manifest
    digest: str
    local: ShardSet | None
    left_out: tuple[str, ...] = ()
    """Damaged shards that are done without; ``manifest`` no longer names them, ``digest`` is still of the whole set."""

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split, in order; none where there is no such split."""
        found = self.manifest.splits.get(split)  # type: ignore[call-overload]
        return found.shards if found else ()

    def open(self, file: str) -> IO[bytes]:
        """One file of the set, to be read from its start. Raises LoaderError when it cannot be opened."""
        return _open(self.address, file)


def open_source(path: str, allow_pipe: bool) -> ShardSource:
    """The shards at ``path``, with their manifest read.

    Raises ManifestError when there is no usable manifest, LoaderError when the address cannot be read, or is a command
    and ``allow_pipe`` is not given: whoever writes a recipe would otherwise run programs on this machine.
    """
    if not is_address(path):
        shards = ShardSet.open(path)
        return ShardSource(str(shards.folder.resolve()), shards.manifest, shards.digest, shards)
    if path.startswith("pipe:"):
        if not allow_pipe:
            raise LoaderError(f"'{path}' would run a program on this machine; add --allow-pipe if you trust it")
        if "{}" not in path:
            raise LoaderError(
                f"'{path}' must say with {{}} where the file's name goes, such as pipe:ssh host cat /data/{{}}"
            )
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _open(path, MANIFEST_NAME) as stream:
                (Path(folder) / MANIFEST_NAME).write_bytes(stream.read(MAX_MANIFEST_BYTES + 1))
        except OSError as error:
            raise LoaderError(f"reading {MANIFEST_NAME} of {path} failed: {why(error)}") from None
        manifest = Manifest.read(Path(folder))
    return ShardSource(path, manifest, manifest.digest(), None)


def why(error: Exception) -> str:
    """An error of reading in words: webdataset's readers are programs, whose errors would show as Python tuples."""
    ended = re.search(r": exit (-?\d+) \(", str(error))
    return f"the program that reads it ended with exit code {ended[1]}" if ended else str(error)


def _open(address: str, file: str) -> IO[bytes]:
    scheme = address.partition(":")[0].lower()
    try:
        if not is_address(address):
            return (Path(address) / file).open("rb")
        url = address.replace("{}", shlex.quote(file)) if scheme == "pipe" else f"{address.rstrip('/')}/{file}"
        if scheme not in gopen_schemes:  # webdataset reads those through the programs of their services
            return fsspec.open(url, "rb").open()  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]
        stream = gopen(url, "rb")
        set_options(stream, ignore_status=_NO_ERROR)
        return stream  # pyright: ignore[reportReturnType]
    except (OSError, ValueError, ImportError) as error:
        raise LoaderError(f"cannot open {file} of {address}: {why(error)}") from None
