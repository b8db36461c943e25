"""Names the lost rank when a collective fails: every rank writes a heartbeat into the ranks' key-value store."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

from preprocess.errors import UserError, first_line

HEARTBEAT_SECONDS = 1.0
LISTEN_SECONDS = 2.5  # a rank without a heartbeat in this time is named as lost
STORE_SECONDS = 2.0  # the store answers in milliseconds, unless its rank is stopped or gone
EXIT_SECONDS = 0.2  # between the end of a process's connections and the end of the process

T = TypeVar("T")

_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|connect timeout|application timeout|\btimeout\b"
    r"|remote process (has )?exited|socket.*(closed|error)|(read|write) error|failed to (send|recv)"
    r"|NCCL (remote|system)",
    re.IGNORECASE,
)


class RankLostError(UserError):
    """Another rank is gone or does not respond."""


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because of the connection between ranks, not because of its arguments.

    gloo raises a plain RuntimeError for both, so only the text tells them apart. Errors of other classes, such as ours,
    are never about the connection, even if a path in their text looks like it.
    """
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    by_torch = type(error) is RuntimeError or isinstance(error, dist.DistError)
    return by_torch and _CONNECTION.search(str(error)) is not None


def launch_attempt() -> str:
    """Returns how often the launcher has restarted the ranks, where all ranks know the same number; else "0".

    On several nodes each launcher counts its own restarts, so the launcher must create a new store per attempt
    (docs/launch.md).
    """
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"


class Heartbeat:
    """Writes this rank's heartbeat from now on, and names the ranks whose heartbeat stopped."""

    def __init__(self) -> None:
        self._rank = dist.get_rank()
        self._others = [rank for rank in range(dist.get_world_size()) if rank != self._rank]
        shared = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateImportUsage]
        store = shared.clone()  # its own connection: a waiting thread may hold the other one
        self._store = dist.PrefixStore(f"heartbeat-{launch_attempt()}", store)  # pyright: ignore[reportPrivateImportUsage]
        self._store_lost, self._lock, self._closed = False, threading.Lock(), threading.Event()
        self._set("process", f"{socket.gethostname()} {os.getpid()}")
        self._processes = self._get("process")
        self._set("failure", "")
        self._set("count", "0")
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def report_failure(self, reason: str) -> None:
        """Tells the other ranks why this rank ends early, if the store can be reached."""
        if not self._store_lost:
            _within(STORE_SECONDS, lambda: self._set("failure", reason))

    def diagnose_lost_ranks(self) -> str:
        """Returns which ranks are lost, and why, in words that follow "lost "."""
        time.sleep(EXIT_SECONDS)
        states = {rank: _local_state(process) for rank, process in self._processes.items()}
        failures = _within(STORE_SECONDS, lambda: self._get("failure"))
        self._store_lost = failures is None
        lost = {rank: state for rank, state in states.items() if state and not (failures or {}).get(rank)}
        if not lost and failures is not None:
            lost = {rank: reason for rank, reason in failures.items() if reason} or self._silent_ranks()
        if lost:
            return " and ".join(f"rank {rank} ({reason})" for rank, reason in list(lost.items())[:3])
        return "a connection" if failures else "a rank (unknown which: the store that would tell is lost too)"

    def close(self) -> None:
        """Stops the heartbeat."""
        if not self._store_lost:
            self._closed.set()
            self._thread.join(STORE_SECONDS)

    def _silent_ranks(self) -> dict[int, str]:
        """The ranks whose heartbeat does not change while this rank listens."""

        def listen() -> list[int]:
            before = self._get("count")
            time.sleep(LISTEN_SECONDS)
            return [rank for rank, count in self._get("count").items() if count == before[rank]]

        silent = _within(LISTEN_SECONDS + STORE_SECONDS, listen) or []
        return {rank: _local_state(self._processes[rank]) or "it does not respond" for rank in silent}

    def _beat(self) -> None:
        count = 0
        while not self._closed.wait(HEARTBEAT_SECONDS):
            count += 1
            try:
                self._set("count", str(count))
            except RuntimeError:  # the store is gone: the main thread will notice in its next collective
                return

    def _set(self, key: str, value: str) -> None:
        with self._lock:
            self._store.set(f"{key}/{self._rank}", value)

    def _get(self, key: str) -> dict[int, str]:
        """What the other ranks have set."""
        with self._lock:
            values = self._store.multi_get([f"{key}/{rank}" for rank in self._others])
        return {rank: bytes(value).decode() for rank, value in zip(self._others, values, strict=True)}


@contextmanager
def watch_ranks(position: Callable[[], str]) -> Iterator[None]:
    """Turns the loss of a rank within the block into a RankLostError.

    Any other error that ends the block is reported to the other ranks, which then name this rank as the lost one.

    Args:
        position: Says where the run was and how to continue, for the message.

    Raises:
        RankLostError: When another rank is gone or does not respond.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        yield
        return
    heartbeat = Heartbeat()
    try:
        yield
    except Exception as error:
        if not is_lost_connection(error):
            heartbeat.report_failure(first_line(error))
            raise
        cause = re.sub(r"^\[\S+\] ", "", first_line(error)).partition(". This")[0]  # without gloo's file and advice
        sentence = f"lost {heartbeat.diagnose_lost_ranks()} {position()} [{cause}]"
        heartbeat.report_failure(sentence)
        raise RankLostError(sentence) from error
    finally:
        heartbeat.close()


def _local_state(process: str) -> str:
    """What is wrong with a process of this machine; "" if nothing is, or if it runs on another machine."""
    host, pid = process.split()
    if host != socket.gethostname() or not Path("/proc/self/stat").exists():
        return ""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        state = "Z"
    return {"Z": f"its process {pid} is gone", "T": f"its process {pid} is stopped"}.get(state, "")


def _within(seconds: float, ask: Callable[[], T]) -> T | None:
    """The answer, or None if the store does not answer in time; its own timeouts do not always hold."""
    answers: list[T] = []

    def run() -> None:
        with suppress(RuntimeError):
            answers.append(ask())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def set_collective_timeout(seconds: float) -> None:
    """Sets how long a collective may take from now on: after the first step no rank works alone for long."""
    if dist.is_initialized():
        group = dist.distributed_c10d
        change = getattr(dist, "set_timeout", None) or group._set_pg_timeout  # public since torch 2.15
        change(timedelta(seconds=seconds))
