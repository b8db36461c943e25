"""What is wrong with a shard: asked by `preprocess verify`, by the trainer before its first step, and by the report."""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from preprocess.shards.manifest import Manifest, Shard
from preprocess.shards.tar import TarDamage, read_members
from preprocess.shards.tar_layout import are_records

_RECORDS = 256  # looked at together


def damage_reason(folder: Path, shard: Shard, content: bool = True) -> str:
    """What is wrong with a shard's file, or "": is it there, in its folder, with its size and (`content`) SHA-256?"""
    path = folder / shard.file
    try:
        return _why_another_file(path, shard) or ("" if not content else _why_other_content(path, shard))
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be opened ({error.strerror})"


def _why_another_file(path: Path, shard: Shard) -> str:
    status = path.stat()
    if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
        return f"it is a link out of its folder, to {path.resolve()}; put the file itself there"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a file"
    return "" if status.st_size == shard.bytes else f"it has {status.st_size:,} bytes and should have {shard.bytes:,}"


def _why_other_content(path: Path, shard: Shard) -> str:
    return "" if file_sha256(path) == shard.sha256 else "its content has changed (its SHA-256 is not the manifest's)"


def format_error(path: Path, shard: Shard, manifest: Manifest) -> str:
    """Why a file is no shard of this manifest though it may have the right SHA-256, or "": looks at every member."""
    try:
        if manifest.layout is not None:
            return "" if all(_records_fit(path, shard, manifest)) else "one of its records is no image with its JSON"
        with path.open("rb") as file:
            counted = sum(name.endswith(".json") for name, _ in read_members(file, f".{manifest.codec}"))
    except TarDamage as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "" if counted == shard.samples else f"it holds {counted:,} samples and the manifest says {shard.samples:,}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _records_fit(path: Path, shard: Shard, manifest: Manifest) -> Iterator[bool]:
    layout = manifest.layout
    assert layout is not None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for first in range(0, shard.samples, _RECORDS):
            count = min(_RECORDS, shard.samples - first)
            data = mapped[first * layout.record_bytes : (first + count) * layout.record_bytes]
            records = np.frombuffer(data, np.uint8).reshape(count, layout.record_bytes)
            yield are_records(records, layout, manifest.image_shape)
