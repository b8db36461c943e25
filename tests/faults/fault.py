"""What a fault test is, and the workspace that it runs in."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests import processes
from tests.processes import REPOSITORY

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


UNFINISHED_NAME = Mutation(
    "temporary name of an unfinished file",
    "preprocess.shards.atomic:replace_file",
    "is_set_to",
    "lambda path, temporary=None, durable=True: "
    "original(path, temporary, durable) if temporary else contextlib.nullcontext(path)",
)


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

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        """The variables of each process of the test."""
        mutated = self.mutation.environment() if self.mutation else {}
        return processes.environment({**mutated, **(env or {})})

    def run(
        self, *words: object, env: dict[str, str] | None = None, timeout: float = 300, ranks: int = 1
    ) -> subprocess.CompletedProcess[str]:
        """Runs a console script of this environment (``preprocess``, ``accelerate``, …) to its end."""
        return processes.run(words, self.environment(env), timeout, ranks)

    def subfolder(self, name: str) -> Path:
        """A new folder for one part of the test."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


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


def one_sentence(error: str, *words: str) -> None:
    """Asserts that a command gave up with one sentence in which all words are, and without a traceback."""
    sentences = [line for line in error.splitlines() if "error: " in line]
    assert len(sentences) == 1 and "Traceback" not in error, f"{len(sentences)} sentences:\n{error}"
    assert all(word in sentences[0] for word in words), f"{words} not in {sentences[0]!r}"
