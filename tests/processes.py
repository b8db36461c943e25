"""Commands of this environment, each in a process of its own that is forked from one which has imported everything.

Five of the six CPU seconds of a small training run are imports; a forked process does without them. It runs the same
script as a user's command, with its own session, environment, output and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

READ_AT_IMPORT = ("PYTHONPATH", "TORCH_COMPILE_DISABLE", "FAULT_MUTATION")
"""Variables that a forked process would not heed."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *("torch._dynamo", "torchvision", "pipeline.cli", "pipeline.training.run_training"),
        *("preprocess.cli", "preprocess.build.worker", "analysis.cli", "analysis.report.report"),
    ]
)


class Forked:
    """A running command; its methods are those of subprocess.Popen."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # for the process that is forked, which the first command starts
        self._process = _CONTEXT.Process(target=_become, args=(_script(words), words, dict(env), out, err))
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


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process, those of every command in a test, and some more."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def can_fork(words: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a command is one of our scripts, and nothing in ``env`` changes its imports."""
    return _script(words) is not None and all(env.get(n) == os.environ.get(n) for n in READ_AT_IMPORT)


def run(commands: Sequence[Sequence[str]], env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs one command, or the ranks of one run, to the end: the largest exit code, and all output."""
    with tempfile.TemporaryDirectory() as folder:
        logs = [(Path(folder, f"{rank}.out"), Path(folder, f"{rank}.err")) for rank in range(len(commands))]
        port = free_port()
        ranks = [rank_environment(rank, len(commands), port) for rank in range(len(commands))]
        running = [Forked(words, {**env, **rank}, *log) for words, rank, log in zip(commands, ranks, logs, strict=True)]
        try:
            codes = [process.wait(timeout) for process in running]
        finally:
            for process in running:
                process.kill()
        said = ["".join(path.read_text() for path in paths) for paths in zip(*logs, strict=True)]
        return subprocess.CompletedProcess(list(commands[0]), max(codes, key=abs), *said)


def rank_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank; nothing where there is only one."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in here.items()}} if world > 1 else {}


def free_port() -> int:
    """A port on loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _script(words: Sequence[str]) -> Path | None:
    if list(words[:2]) == ["python", "pipeline/train.py"]:
        return REPOSITORY / words[1]
    return BIN / words[0] if words[0] in {"preprocess", "analysis", "mmd-vlae-train"} else None


def _become(script: Path, words: Sequence[str], env: Mapping[str, str], out: Path, err: Path) -> None:
    """Runs the script in the forked process, which shares nothing with the test's process but the modules."""
    os.setsid()
    os.chdir(REPOSITORY)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.argv = [str(script), *words[2 if words[0] == "python" else 1 :]]
    runpy.run_path(str(script), run_name="__main__")
