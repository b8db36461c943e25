"""Atomic writes: a file has its old content or its new content, never a part of it, even after a power cut."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replace_file(path: Path, temporary: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path. Renames it to `path` when the block succeeds, and deletes it when the block fails.

    Args:
        path: the file to write or to replace.
        temporary: where the content is written first, on the same file system. By default `.NAME.tmp` beside `path`;
            processes that may write the same file at the same time need different ones.
        durable: whether the data is fsynced before the rename, and the folder after it.

    Raises:
        OSError: the file could not be written; `path` is unchanged. The error names `path` if it named no file.
    """
    temporary = temporary or path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(path)
        raise


def write_file(path: Path, content: bytes, temporary: Path | None = None, durable: bool = True) -> None:
    """Writes `content` to `path` through `replace_file`."""
    with replace_file(path, temporary, durable) as unfinished:
        unfinished.write_bytes(content)


def write_json(path: Path, plain: Any) -> None:
    """Writes `plain` to `path` as indented ASCII JSON through `replace_file`."""
    write_file(path, json_bytes(plain))


def json_bytes(plain: Any) -> bytes:
    """Returns `plain` as indented ASCII JSON."""
    return (json.dumps(plain, indent=1) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
