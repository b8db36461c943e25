"""What a drill is, and the ground it stands on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import BIN, REPOSITORY

CODE = ("pipeline", "preprocess", "analysis", "launch", "tests")
DRILLS: list[Drill] = []


class NotOnThisMachine(Exception):
    """The drill needs something that this machine does not permit; the message says what."""


@dataclass(frozen=True)
class Mutation:
    """A protection taken out of a copy of the code: ``old`` occurs once in ``file`` and becomes ``new``."""

    protection: str
    file: str
    old: str
    new: str

    def apply(self, code: Path) -> None:
        """Raises ValueError where the text is not there exactly once: the removal has gone stale."""
        text = (code / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} holds {text.count(self.old)} times what the removal takes out: {self.old!r}")
        (code / self.file).write_text(text.replace(self.old, self.new))


@dataclass
class Workspace:
    """Where a drill runs: an empty ``folder``, the ``code`` under test, small shards, and how far to go."""

    folder: Path
    code: Path
    faces: Path
    """A CelebA-format tree of 420 drawn faces; read-only."""
    shards: Path
    """32x32 shards of ``faces``, several a split; read-only."""
    full: bool = False
    """``make drill`` (every moment of the table) or the test suite's short case."""

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        paths = {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return {**os.environ, **paths, **(env or {})}

    def run(
        self, *words: object, env: dict[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A console script of this environment (``preprocess``, ``accelerate``, …) on ``code``, to its end."""
        return subprocess.run(
            self._words(words),
            cwd=self.code,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @contextmanager
    def started(self, *words: object, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """The same, while it runs, in a session of its own: nothing of it outlives the block."""
        process = subprocess.Popen(
            self._words(words),
            cwd=self.code,
            env=self.environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill_session(process.pid)
            process.communicate()

    def room(self, name: str) -> Path:
        """A folder of its own for a part of the drill."""
        room = self.folder / name
        room.mkdir(parents=True)
        return room

    def _words(self, words: tuple[object, ...]) -> list[str]:
        program, *rest = map(str, words)
        return [str(BIN / program), *rest]


def kill_session(session: int) -> None:
    """Kills every process of a session (Linux: ``accelerate`` starts its ranks in the launcher's session)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except OSError:
            continue


@dataclass(frozen=True)
class Drill:
    """``run`` raises AssertionError where ``must_hold`` does not; else it returns what was seen, in one sentence."""

    name: str
    must_hold: str
    run: Callable[[Workspace], str]
    removals: tuple[Mutation, ...]


def drill(name: str, must_hold: str, *removals: Mutation) -> Callable[[Callable[[Workspace], str]], Drill]:
    """Makes a function a drill. Each removal takes one protection out, and the drill must fail without it."""

    def register(function: Callable[[Workspace], str]) -> Drill:
        made = Drill(name, must_hold, function, removals)
        DRILLS.append(made)
        return made

    return register


def copy_of_the_code(to: Path) -> Path:
    """A copy of the working tree's packages, for a removal to be made in."""
    for name in CODE:
        shutil.copytree(REPOSITORY / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def make_material(folder: Path) -> tuple[Path, Path]:
    """The faces and the shards that every drill reads. Raises RuntimeError where the commands fail."""
    faces, shards = folder / "faces", folder / "shards"
    for words in (
        ["faces", "--out", faces, "--count", 420, "--seed", 3],
        ["celeba", "--source", faces, "--out", shards, "--size", 32, "--shard-size", 100],
    ):
        done = subprocess.run(
            [str(BIN / "preprocess"), *map(str, words)], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
    return faces, shards
