"""Which other ranks are still there: each leaves a sign of life in the ranks' store, read when a collective fails."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

SECONDS_BETWEEN_SIGNS = 1.0
SECONDS_OF_LISTENING = 2.5  # a rank that gives no sign in this time is named as the lost one
SECONDS_FOR_STORE = 2.0  # it answers in milliseconds, or its rank is stopped or gone
SECONDS_OF_DYING = 0.2  # between the end of a process's connections and that of the process

T = TypeVar("T")

_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|connect timeout|application timeout|\btimeout\b"
    r"|remote process (has )?exited|socket.*(closed|error)|(read|write) error|failed to (send|recv)"
    r"|NCCL (remote|system)",
    re.IGNORECASE,
)


class PeerLost(RuntimeError):
    """Another rank is gone or silent; the message is one sentence for the terminal."""


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed for the ranks' connection, and not for how it was called.

    gloo raises plain RuntimeErrors for both: only their words tell them apart. Errors of a class of their own, such as
    ours, are never about the connection, whatever words a path in them has.
    """
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    by_torch = type(error) is RuntimeError or isinstance(error, dist.DistError)
    return by_torch and _CONNECTION.search(str(error)) is not None


class Peers:
    """Gives this rank's signs of life from now on, and names the ranks that give none."""

    def __init__(self) -> None:
        self._store_lost = False
        self._alone = not dist.is_initialized() or dist.get_world_size() == 1
        if self._alone:
            return
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        shared = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateImportUsage]
        store = shared.clone()  # a connection of our own: the other may be held by one who waits
        self._store = dist.PrefixStore(f"peers-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # pyright: ignore[reportPrivateImportUsage]
        self._lock = threading.Lock()
        self._set("who", f"{socket.gethostname()} {os.getpid()}")
        self._who = self._get("who", [rank for rank in range(self._size) if rank != self._rank])
        self._set("left", "")
        self._set("sign", "0")
        self._over = threading.Event()
        self._living = threading.Thread(target=self._live, name="signs of life", daemon=True)
        self._living.start()

    def farewell(self, why: str) -> None:
        """Tells the others why this rank leaves before the run is over; does nothing where they cannot be told."""
        if not (self._alone or self._store_lost):
            _within(SECONDS_FOR_STORE, lambda: self._set("left", why))

    def verdict(self) -> str:
        """Which ranks are lost, and how, in words that follow "lost "."""
        if self._alone:
            return "the connection"
        time.sleep(SECONDS_OF_DYING)
        here = {rank: _state_here(who) for rank, who in self._who.items()}
        left = _within(SECONDS_FOR_STORE, lambda: self._get("left", list(self._who)))
        self._store_lost = left is None
        lost = {rank: state for rank, state in here.items() if state and not (left or {}).get(rank)}
        if not lost and left is not None:
            lost = {rank: why for rank, why in left.items() if why} or self._silent()
        if not lost:
            return "a rank, and with it the store that would tell which" if left is None else "the way to a rank"
        return " and ".join(f"rank {rank} ({why})" for rank, why in list(lost.items())[:3])

    def _silent(self) -> dict[int, str]:
        """The ranks that give no sign of life while this one listens."""

        def listen() -> list[int]:
            before = self._get("sign", list(self._who))
            time.sleep(SECONDS_OF_LISTENING)
            return [rank for rank, sign in self._get("sign", list(self._who)).items() if sign == before[rank]]

        silent = _within(SECONDS_OF_LISTENING + SECONDS_FOR_STORE, listen) or []
        return {rank: _state_here(self._who[rank]) or "it gives no sign of life" for rank in silent}

    def close(self) -> None:
        """No more signs of life."""
        if not (self._alone or self._store_lost):
            self._over.set()
            self._living.join(SECONDS_FOR_STORE)

    def _live(self) -> None:
        count = 0
        while not self._over.wait(SECONDS_BETWEEN_SIGNS):
            count += 1
            try:
                self._set("sign", str(count))
            except RuntimeError:  # the store is gone: whoever waits in a collective will hear of it there
                return

    def _set(self, key: str, value: str) -> None:
        with self._lock:
            self._store.set(f"{key}/{self._rank}", value)

    def _get(self, key: str, ranks: list[int]) -> dict[int, str]:
        with self._lock:
            values = self._store.multi_get([f"{key}/{rank}" for rank in ranks])
        return {rank: bytes(value).decode() for rank, value in zip(ranks, values, strict=True)}


@contextmanager
def watched(where: Callable[[], str]) -> Iterator[None]:
    """Turns the loss of a rank within the block into PeerLost, which says ``where`` this rank was.

    Whatever else ends the block is told to the other ranks, for whom this one is then the lost one.
    """
    peers = Peers()
    try:
        yield
    except Exception as error:
        if not is_lost_connection(error):
            peers.farewell(_first_line(error))
            raise
        sentence = f"lost {peers.verdict()} {where()} [{_cause(error)}]"
        peers.farewell(sentence)
        raise PeerLost(sentence) from error
    finally:
        peers.close()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _cause(error: Exception) -> str:
    """gloo's words without its source file and its advice."""
    return re.sub(r"^\[\S+\] ", "", _first_line(error)).partition(". This")[0]


def _state_here(who: str) -> str:
    """What is wrong with a process of this machine, in words; "" where nothing is, or it is another machine's."""
    host, process = who.split()
    if host != socket.gethostname() or not Path("/proc/self/stat").exists():
        return ""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return f"its process {process} is gone"
    return {"Z": f"its process {process} is gone", "T": f"its process {process} is stopped"}.get(state, "")


def _within(seconds: float, ask: Callable[[], T]) -> T | None:
    """The answer, or None where the store is gone or silent: its calls may block whatever time-out they are given."""
    answers: list[T] = []

    def run() -> None:
        try:
            answers.append(ask())
        except RuntimeError:
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def set_collective_timeout(seconds: float) -> None:
    """How long a collective may take from now on: after the first step no rank has anything long to do alone."""
    if dist.is_initialized():
        group = dist.distributed_c10d
        change = getattr(dist, "set_timeout", None) or group._set_pg_timeout  # the public name is new in torch 2.15
        change(timedelta(seconds=seconds))
