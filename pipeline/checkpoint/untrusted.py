"""Checks a checkpoint from an unknown source: plain values, and tensors no larger than the file.

``torch.load(weights_only=True)`` runs no code, but it allocates as much memory as the file asks for: a bytearray of any
size, an unpacked archive, a tensor that repeats one stored number a billion times. A checksum proves nothing about who
made a file.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = r"torch (Float|Double|Half|BFloat16|Byte|Char|Short|Int|Long|Bool)Storage"
_PLAIN = re.compile(_STORAGES + r"|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict")
_MAX_DEPTH = 12
_MAX_VALUES = 1_000_000  # a checkpoint has a few thousand


class UntrustedContentError(ValueError):
    """The file holds something that no checkpoint holds."""


def check_archive(path: Path) -> None:
    """Checks the archive and its pickle without loading either.

    Raises:
        UntrustedContentError: When they hold anything that no checkpoint holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UntrustedContentError("its archive is compressed, which torch.save never does")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise UntrustedContentError("its archive claims to hold more than the file")
            for member in members:
                if member.filename.endswith(".pkl"):
                    _refuse_unknown_types(archive.read(member))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise UntrustedContentError(f"its archive is damaged ({error})") from None


def _refuse_unknown_types(content: bytes) -> None:
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name in {"STACK_GLOBAL", "INST"} or (code.name == "GLOBAL" and not _PLAIN.fullmatch(str(argument))):
                asked = str(argument or code.name)[:80]
                raise UntrustedContentError(f"it asks for {asked!r}, which is not a plain value")
    except UntrustedContentError:
        raise
    except Exception as error:  # pickletools raises nearly anything on damaged pickles
        raise UntrustedContentError(f"its values cannot be read ({str(error)[:80]})") from None


def check_tensors(state: Any, path: Path) -> None:
    """Checks that all tensors together are no larger than the file.

    Raises:
        UntrustedContentError: When they are larger.
    """
    claimed = 0
    for number, value in enumerate(_values(state, 0)):
        if number > _MAX_VALUES:
            raise UntrustedContentError("it holds more values than any checkpoint")
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu":
                raise UntrustedContentError("it holds a tensor without stored numbers")
            claimed += value.numel() * value.element_size()
    if claimed > path.stat().st_size:
        raise UntrustedContentError(f"its tensors claim {claimed:,} bytes, more than the file has")


def _values(value: Any, depth: int) -> Iterator[Any]:
    if depth > _MAX_DEPTH:
        raise UntrustedContentError("its values are nested too deep")
    yield value
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner, depth + 1)
