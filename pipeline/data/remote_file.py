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
from collections.abc import Callable
from functools import partial
from typing import IO, Protocol
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


class Stream(Protocol):
    """What a transport opens: bytes in order."""

    def read(self, size: int, /) -> bytes:
        """Returns up to ``size`` bytes, none at the end. Raises OSError where the connection breaks."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


class RemoteFile:
    """Reads one file in order. A broken or stalled connection is opened again at the byte where it broke."""

    def __init__(self, address: str, file: str) -> None:
        """Opens ``file`` of ``address``.

        Raises:
            LoaderError: It cannot be opened; the message has the HTTP status or the system's reason.
        """
        self.name = f"{file} of {address}"
        self._open_at = _transport(address, file)
        self._position, self._failures = 0, 0
        self._stream: Stream | None = None
        self._retry(lambda: None)

    def __enter__(self) -> RemoteFile:
        """Returns the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.close()

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next ``size`` bytes, fewer only at the end of the file; all that are left for −1.

        Raises:
            LoaderError: The connection broke, and all further tries failed.
        """
        parts: list[bytes] = []
        left = size
        while left:
            count = min(left, _CHUNK) if size >= 0 else _CHUNK
            part = self._retry(partial(self._read_some, count))
            if not part:
                break
            parts.append(part)
            left -= len(part) if size >= 0 else 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Closes the connection."""
        if self._stream is not None:
            with contextlib.suppress(Exception):
                self._stream.close()
            self._stream = None

    def _read_some(self, size: int) -> bytes:
        assert self._stream is not None
        data = self._stream.read(size)
        self._position += len(data)
        if data:
            self._failures = 0
        return data

    def _retry(self, read: Callable[[], bytes | None]) -> bytes:
        """Runs ``read`` on an open stream, and again on a new one where it fails."""
        while True:
            try:
                if self._stream is None:
                    self._stream = self._open_at(self._position)
                return read() or b""
            except Exception as error:
                self.close()
                if isinstance(error, urllib.error.HTTPError) and error.code == 416 and self._position:
                    return b""  # the file ends where the connection broke
                self._wait_or_give_up(error)

    def _wait_or_give_up(self, error: Exception) -> None:
        cause = error.reason if type(error) is urllib.error.URLError else error
        final = isinstance(cause, _PERMANENT) or "Credential" in type(cause).__name__  # of S3's library
        asked_seconds = 0.0
        if isinstance(error, urllib.error.HTTPError):
            final = error.code not in TRANSIENT_STATUS
            after = error.headers.get("Retry-After", "")
            asked_seconds = float(min(int(after), MAX_RETRY_AFTER)) if after.isdecimal() else 0.0
        at = f" at byte {self._position:,}" if self._position else ""
        if final or self._failures == len(RETRY_SECONDS):
            tries = "" if final else f", {self._failures + 1} times"
            raise LoaderError(f"reading {self.name} failed{at}{tries}: {reason(error)}{self._proxy(error)}") from None
        # ranks should not all ask at once
        pause = max(asked_seconds, RETRY_SECONDS[self._failures] * random.uniform(0.8, 1.2))
        if pause > SILENT_SECONDS:
            with contextlib.suppress(OSError):  # a closed terminal
                print(
                    f"reading {self.name} failed{at}: {reason(error)}; trying again in {pause:.0f} s", file=sys.stderr
                )
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


def _transport(address: str, file: str) -> Callable[[int], Stream]:
    """Returns what opens the file at a byte."""
    scheme = address.partition(":")[0].lower()
    if scheme == "pipe":
        command = address.partition(":")[2].replace("{}", shlex.quote(file))
        return lambda position: _skip(_Program(command), position)
    url = f"{address.rstrip('/')}/{quote(file)}"
    if scheme in ("http", "https"):
        return lambda position: _open_http(url, position)

    def open_at(position: int) -> Stream:
        stream: IO[bytes] = fsspec.open(url, "rb").open()  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
        if position:
            stream.seek(position)
        return stream

    return open_at


def _open_http(url: str, position: int) -> Stream:
    headers = {"User-Agent": "mmd-vlae", "Accept-Encoding": "identity"}
    if position:
        headers["Range"] = f"bytes={position}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https only, see _transport
    response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    start = position if response.status == 206 else 0  # 200: the server knows no ranges and sends the whole file
    if sent := re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")):
        start = int(sent[1])
    if start > position:
        raise OSError(f"the server sent the file from byte {start:,} when asked for byte {position:,}")
    return _skip(_HttpStream(response), position - start)


class _HttpStream:
    """A response whose early end is an error: http.client reports it as the end of the file."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        left = self._response.length
        data = self._response.read(size)
        if left and not data:
            raise http.client.IncompleteRead(data, left)
        return data

    def close(self) -> None:
        self._response.close()


class _Program:
    """The output of a shell command, with a limit on its silence."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._process = subprocess.Popen(  # noqa: S602 - a command that the user allowed with --allow-pipe
            command,
            shell=True,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._output = self._process.stdout.raw

    def read(self, size: int, /) -> bytes:
        if not select.select([self._output], [], [], TIMEOUT_SECONDS)[0]:
            raise TimeoutError
        data = self._output.read(size) or b""
        if not data and self._process.wait() in (126, 127):
            raise LoaderError(f"`{self._command}` is not a program that can be run on this machine")
        if not data and self._process.returncode:
            raise OSError(f"`{self._command}` ended with exit code {self._process.returncode}")
        return data

    def close(self) -> None:
        self._output.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)


def _skip(stream: Stream, count: int) -> Stream:
    """Reads ``count`` bytes that have been read before."""
    while count:
        data = stream.read(min(count, _CHUNK))
        if not data:
            break
        count -= len(data)
    return stream
