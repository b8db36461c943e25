"""Commands of this environment, each in a process of its own that is forked from one which has imported everything.

Five of the six CPU seconds of a small training run are imports; a forked process does without them. It runs the same
script as a user's command, with its own session, environment, output and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

READ_AT_IMPORT = ("PYTHONPATH", "TORCH_COMPILE_DISABLE", "FAULT_MUTATION")
"""Variables that a forked process would not heed."""
IMPORTED = [
    *("torch._dynamo", "torchvision", "pipeline.cli", "pipeline.training.run_training"),
    *("preprocess.cli", "preprocess.build.worker", "analysis.cli", "analysis.report.report"),
]
"""What the forked process has imported; Python skips silently what does not exist."""

_CONTEXT = multiprocessing.get_context("forkserver")


class Forked:
    """A running command; its methods are those of subprocess.Popen."""

    def __init__(self, *command: object) -> None:
        Server.start()
        self._process = _CONTEXT.Process(target=_become, args=command)
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked command", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def imported_with(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, commands are forked from a process that has imported everything with these variables."""
    before = dict(os.environ)
    Server.end()
    os.environ.update(variables)
    try:
        yield
    finally:
        Server.end()
        os.environ.clear()
        os.environ.update(before)


class Server:
    """The process that is forked. A process has only one: ours replaces that of preprocessing in the same process."""

    _of_python: Any = vars(forkserver)["_forkserver"]
    _process = 0

    @classmethod
    def is_running(cls) -> bool:
        return cls._process == cls._of_python._forkserver_pid

    @classmethod
    def start(cls) -> None:
        if not cls.is_running():
            cls.end()
            os.environ["OMP_NUM_THREADS"] = "1"
            _CONTEXT.set_forkserver_preload(IMPORTED)
            forkserver.ensure_running()
            cls._process = cls._of_python._forkserver_pid

    @classmethod
    def end(cls) -> None:
        if cls._of_python._forkserver_pid is not None:
            os.kill(cls._of_python._forkserver_pid, signal.SIGKILL)
            cls._of_python._stop()


Process = Forked | subprocess.Popen[bytes]


def patience(seconds: float) -> float:
    """A time limit: up to 8 times longer on a machine with more to do than it has cores."""
    return seconds * min(max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0))), 8.0)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of this process, those of every command in a test (on the CPU), and some more."""
    every = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **every, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(more or {})}


def start(
    words: Sequence[object], env: dict[str, str], out: Path, err: Path, fork: bool = True, cwd: Path = REPOSITORY
) -> Process:
    """Starts a command in a session of its own; it is forked where that makes no difference."""
    program, *rest = [str(word) for word in words]
    if fork and all(env.get(name) == os.environ.get(name) for name in READ_AT_IMPORT):
        if program in {"accelerate", "analysis"} or (program == "preprocess" and Server.is_running()):
            return Forked(BIN / program, rest, cwd, env, out, err)  # preprocess alone is quick
        if program == "python" and rest[0].endswith(".py"):
            return Forked(REPOSITORY / rest[0], rest[1:], cwd, env, out, err)
    with out.open("ab") as stdout, err.open("ab") as stderr:
        return subprocess.Popen(
            [program, *rest],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )


def run(
    words: Sequence[object], env: dict[str, str], timeout: float, ranks: int = 1, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Runs a command, or so many ranks of it, to the end: the first exit code that is not 0, and all output."""
    with tempfile.TemporaryDirectory() as folder:
        logs = [(Path(folder, f"{rank}.out"), Path(folder, f"{rank}.err")) for rank in range(ranks)]
        port = free_port()
        running = [
            start(words, {**env, **rank_environment(rank, ranks, port)}, *log, cwd=cwd) for rank, log in enumerate(logs)
        ]
        try:
            codes = [process.wait(patience(timeout)) for process in running]
        finally:
            for process in running:
                process.kill()
        out, err = ("".join(path.read_text() for path in paths) for paths in zip(*logs, strict=True))
        return subprocess.CompletedProcess(list(map(str, words)), next(filter(None, codes), 0), out, err)


@contextmanager
def no_survivors(running: Sequence[Process]) -> Iterator[None]:
    """Kills the commands and every process of their sessions when the block ends."""
    try:
        yield
    finally:
        for process in running:
            _kill_session(process.pid)
        for process in running:
            process.wait()


def _kill_session(session: int) -> None:
    for process in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process) == session:
                os.kill(process, signal.SIGKILL)


def rank_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank; nothing where there is only one."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}} if world > 1 else {}


def free_port() -> int:
    """A port on loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _become(script: Path, words: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """Runs the script in the forked process, which shares nothing with the test's process but the modules."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
