"""A local HTTP server that behaves like object storage over a slow and unreliable network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 1 << 16


@dataclass
class Network:
    """How the server behaves. It can be changed while the server runs."""

    latency_seconds: float = 0.0
    """Before each answer."""
    bytes_per_second: float = 0.0
    """Of all connections together; 0 = no limit."""
    drop_every: int = 0
    """One request in so many is dropped in the middle of its body; 0 = none."""
    stalled: bool = False
    """Whether bodies stop coming, with the connection open."""
    status: int = 0
    """Answer of every request; 0 = the file."""
    ranges: bool = True
    """Whether requests for a part of a file are answered with that part."""
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    free_at: float = 0.0


@contextlib.contextmanager
def served(folder: Path, network: Network) -> Iterator[str]:
    """Serves a folder. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with network.lock:
                network.requests += 1
                number = network.requests
            time.sleep(network.latency_seconds)
            path = folder / self.path.lstrip("/")
            if network.status or not path.is_file():
                self.send_error(network.status or 404)
                return
            content = path.read_bytes()
            start = int(self.headers["Range"][6:-1]) if "Range" in self.headers and network.ranges else 0
            if start >= len(content) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            dropped = network.drop_every and number % network.drop_every == 0
            stop = start + (len(content) - start) // 2 if dropped else len(content)
            self._send(content[start:stop])

        def _send(self, body: bytes) -> None:
            with contextlib.suppress(OSError):
                for first in range(0, len(body), CHUNK):
                    while network.stalled:
                        time.sleep(0.05)
                    part = body[first : first + CHUNK]
                    if network.bytes_per_second:
                        with network.lock:
                            network.free_at = max(network.free_at, time.monotonic())
                            network.free_at += len(part) / network.bytes_per_second
                            wait = network.free_at - time.monotonic()
                        time.sleep(max(0.0, wait))
                    self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        network.stalled = False
        server.shutdown()
        server.server_close()
