"""What a fault test is, and the workspace that it runs in."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests import processes
from tests.processes import BIN, REPOSITORY

FAULTS: list[Fault] = []
MUTATED = REPOSITORY / "tests/faults/mutated"


class NotSupportedHere(Exception):
    """The test needs something that this machine does not permit; the message says what."""


@dataclass(frozen=True)
class Mutation:
    """Removes one protection in all processes of a test: a patch of a named function, class or constant."""

    protection: str
    target: str
    """"package.module:name" or "package.module:Class.name"."""
    kind: Literal["returns", "is_set_to", "shows_causes"]
    value: Any = None
    """returns: a JSON value; is_set_to: a Python expression, which may use ``original``; shows_causes: nothing."""

    def environment(self) -> dict[str, str]:
        """The variables that make every Python process start without the protection (tests/faults/mutated)."""
        asked = {"target": self.target, "kind": self.kind, "value": self.value}
        return {"PYTHONPATH": f"{MUTATED}{os.pathsep}{REPOSITORY}", "FAULT_MUTATION": json.dumps(asked)}

    def check(self) -> None:
        """Raises AttributeError or ImportError if the target does not exist."""
        module, name = self.target.split(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)


@dataclass
class Workspace:
    """Where a fault test runs: an empty ``folder``, small shards, and how far to go."""

    folder: Path
    faces: Path
    """A CelebA-format tree of 420 drawn faces; read-only."""
    shards: Path
    """32x32 shards of ``faces``, several per split; read-only."""
    full: bool = False
    """``make faults`` (every moment of the table) or the test suite's short case."""
    mutation: Mutation | None = None
    """The protection that is removed, if any."""

    @property
    def code(self) -> Path:
        """The working tree."""
        return REPOSITORY

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        """The variables of each process of the test."""
        mutated = self.mutation.environment() if self.mutation else {}
        return processes.environment({**mutated, **(env or {})})

    def run(
        self, *words: object, env: dict[str, str] | None = None, timeout: float = 300, ranks: int = 1
    ) -> subprocess.CompletedProcess[str]:
        """Runs a console script of this environment (``preprocess``, ``accelerate``, …) to its end."""
        return processes.run(words, self.environment(env), timeout, ranks)

    @contextmanager
    def started(self, *words: object, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """The same while it runs, in a session of its own: no process outlives the block."""
        program, *rest = map(str, words)
        process = subprocess.Popen(
            [str(BIN / program), *rest],
            cwd=REPOSITORY,
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

    def subfolder(self, name: str) -> Path:
        """A new folder for one part of the test."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


def kill_session(session: int) -> None:
    """Kills every process of a session (Linux: ``accelerate`` starts its ranks in the launcher's session)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except OSError:
            continue


@dataclass(frozen=True)
class Fault:
    """``run`` raises AssertionError if ``must_hold`` does not; else it returns what happened, in one sentence."""

    name: str
    must_hold: str
    run: Callable[[Workspace], str]
    mutations: tuple[Mutation, ...]


def fault(name: str, must_hold: str, *mutations: Mutation) -> Callable[[Callable[[Workspace], str]], Fault]:
    """Makes a function a fault test. Each mutation removes one protection, and the test must fail without it."""

    def register(function: Callable[[Workspace], str]) -> Fault:
        made = Fault(name, must_hold, function, mutations)
        FAULTS.append(made)
        return made

    return register


def make_material(folder: Path) -> tuple[Path, Path]:
    """The faces and the shards that every fault test reads. Raises RuntimeError if the commands fail."""
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
