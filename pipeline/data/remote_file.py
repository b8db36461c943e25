"""One file behind an address, read from its start to its end, however often the connection breaks on the way.

Addresses are URLs that end where the file names begin (``https://host/shards``, ``s3://bucket/shards``), or a command,
``pipe:ssh host cat /shards/{}``, in which ``{}`` is the file's name.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import re
import select
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from typing import IO
from urllib.parse import quote, urlsplit

import fsspec

from pipeline.data.batch import LoaderError
from preprocess.errors import first_line

TIMEOUT_SECONDS = 20.0
"""How long the other side may be silent before the connection counts as broken."""
RETRY_SECONDS = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Pauses before the next tries. Every byte that arrives restores all of them."""
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_RETRY_AFTER = 60
"""Seconds that a server may ask us to wait."""
SILENT_SECONDS = 2.0
"""A longer pause is announced on the terminal."""
_CHUNK = 1 << 20
_PERMANENT = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, ImportError, LoaderError),
    *(ssl.SSLCertVerificationError, http.client.InvalidURL),
)

Chunks = Generator[bytes]
"""The bytes of a file in order. The first ones, which have been read before, may be cut off to nothing."""


class RemoteFile:
    """Reads one file in order. A broken or stalled connection is opened again at the byte where it broke."""

    def __init__(self, address: str, file: str) -> None:
        """Opens ``file`` of ``address``.

        Raises:
            LoaderError: When it cannot be opened; the message has the HTTP status or the system's reason.
        """
        self.name = f"{file} of {address}"
        self._open_at = _transport(address, file)
        self._chunks: Chunks | None = None
        self._position, self._failures = 0, 0
        self._unread = memoryview(self._next_chunk())

    def __enter__(self) -> RemoteFile:
        """Returns the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self._close()

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next ``size`` bytes, fewer only at the end of the file; all that are left for −1.

        Raises:
            LoaderError: When the connection broke and all further tries failed.
        """
        parts: list[memoryview] = []
        missing = size if size >= 0 else sys.maxsize
        while missing:
            self._unread = self._unread or memoryview(self._next_chunk())
            part, self._unread = self._unread[:missing], self._unread[missing:]
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _close(self) -> None:
        if self._chunks is not None:
            with contextlib.suppress(Exception):
                self._chunks.close()
            self._chunks = None

    def _next_chunk(self) -> bytes:
        """Returns some bytes, none at the end of the file. Opens the file again where that fails."""
        while True:
            try:
                self._chunks = self._chunks or self._open_at(self._position)
                chunk = next(filter(None, self._chunks), b"")
            except Exception as error:
                self._close()
                if isinstance(error, urllib.error.HTTPError) and error.code == 416 and self._position:
                    return b""  # the file ends where the connection broke
                self._wait_or_give_up(error)
            else:
                self._position += len(chunk)
                self._failures = 0
                return chunk

    def _wait_or_give_up(self, error: Exception) -> None:
        cause = error.reason if type(error) is urllib.error.URLError else error
        final = isinstance(cause, _PERMANENT) or "Credential" in type(cause).__name__  # of S3's library
        asked_seconds = 0.0
        if isinstance(error, urllib.error.HTTPError):
            final = error.code not in TRANSIENT_STATUS
            after = error.headers.get("Retry-After", "")
            asked_seconds = float(min(int(after), MAX_RETRY_AFTER)) if after.isdecimal() else 0.0
        failed = f"reading {self.name} failed" + (f" at byte {self._position:,}" if self._position else "")
        if final or self._failures == len(RETRY_SECONDS):
            tries = "" if final else f", {self._failures + 1} times"
            raise LoaderError(f"{failed}{tries}: {reason(error)}{self._proxy(error)}") from None
        # ranks should not all ask at once
        pause = max(asked_seconds, RETRY_SECONDS[self._failures] * random.uniform(0.8, 1.2))
        if pause > SILENT_SECONDS:
            with contextlib.suppress(OSError):  # a closed terminal
                print(f"{failed}: {reason(error)}; trying again in {pause:.0f} s", file=sys.stderr)
        time.sleep(pause)
        self._failures += 1

    def _proxy(self, error: Exception) -> str:
        """Names the variable of the proxy that a failed connection went through."""
        url = urlsplit(self.name.rpartition(" ")[2])
        proxied = url.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(url.netloc)
        is_connection = type(error) is urllib.error.URLError
        return f" (through the proxy of {url.scheme}_proxy)" if proxied and is_connection else ""


def reason(error: Exception) -> str:
    """Returns why reading failed, in words."""
    if isinstance(error, urllib.error.HTTPError):
        hint = {401: "; it asks for credentials", 403: "; it refuses access", 404: "; check the address"}
        text = str(error.reason).partition("\n")[0]
        return f"the server answered HTTP {error.code} {text}{hint.get(error.code, '')}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return reason(error.reason)
    if isinstance(error, TimeoutError):
        return f"the other side was silent for {TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the server closed the connection"
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the address"
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def _transport(address: str, file: str) -> Callable[[int], Chunks]:
    """Returns what opens the file at a byte."""
    scheme = address.partition(":")[0].lower()
    url = f"{address.rstrip('/')}/{quote(file)}"
    if scheme == "pipe":
        command = address.partition(":")[2].replace("{}", shlex.quote(file))
        return lambda position: _from_program(command, position)
    if scheme in ("http", "https"):
        return lambda position: _from_http(url, position)
    return lambda position: _from_storage(url, position)


def _from_storage(url: str, position: int) -> Chunks:
    opened: IO[bytes] = fsspec.open(url, "rb").open()  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
    with opened as file:
        if position:
            file.seek(position)
        while data := file.read(_CHUNK):
            yield data


def _from_http(url: str, position: int) -> Chunks:
    headers = {"User-Agent": "mmd-vlae", "Accept-Encoding": "identity"}
    if position:
        headers["Range"] = f"bytes={position}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https only, see _transport
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        at = position if response.status == 206 else 0  # 200: the server knows no ranges and sends the whole file
        if sent := re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")):
            at = int(sent[1])
        if at > position:
            raise OSError(f"the server sent the file from byte {at:,} when asked for byte {position:,}")
        while data := response.read(_CHUNK):
            yield data[max(0, position - at) :]
            at += len(data)
        if response.length:  # http.client reports an early end as the end of the file
            raise http.client.IncompleteRead(data, response.length)


def _from_program(command: str, position: int) -> Chunks:
    """Yields the output of a shell command, with a limit on its silence."""
    process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S602 - allowed
    assert isinstance(process.stdout, io.BufferedReader)
    output, at = process.stdout.raw, 0
    try:
        while True:
            if not select.select([output], [], [], TIMEOUT_SECONDS)[0]:
                raise TimeoutError
            data = output.read(_CHUNK)
            if not data:
                break
            yield data[max(0, position - at) :]
            at += len(data)
        if process.wait() in (126, 127):
            raise LoaderError(f"`{command}` is not a program that can be run on this machine")
        if process.returncode:
            raise OSError(f"`{command}` ended with exit code {process.returncode}")
    finally:
        output.close()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
