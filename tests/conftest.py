"""Shared material of the tests: a small tree of drawn faces and its shards, made by the public commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests import processes
from tests.processes import BIN, REPOSITORY

__all__ = ["BIN", "REPOSITORY"]

torch.set_num_threads(1)


def run_command(*words: object, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    """Runs a console script of this environment in the repository, as a user would."""
    return processes.run(words, processes.environment(env), timeout)


Shared = Callable[[str, Callable[[Path], object]], Path]


def succeed(*words: object) -> None:
    """Runs a command that must end with 0."""
    done = run_command(*words)
    assert done.returncode == 0, done.stderr


def make_faces(out: Path) -> None:
    """Makes a CelebA-format tree of 420 drawn faces."""
    succeed("preprocess", "faces", "--count", 420, "--seed", 3, "--workers", 1, "--out", out)


def make_shards(faces: Path, out: Path, *options: object) -> None:
    """Makes 32x32 shards of faces, several a split."""
    words = ("--size", 32, "--shard-size", 100, "--workers", 1, *options)
    succeed("preprocess", "celeba", "--source", faces, "--out", out, *words)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A function that makes a folder once for all workers of pytest-xdist; tests only read it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made = base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not made.exists():
                (base / name).mkdir(exist_ok=True)
                make(base / name)
                made.touch()
        return base / name

    return folder


@pytest.fixture(scope="session")
def faces_tree(shared: Shared) -> Path:
    """A CelebA-format tree of 420 drawn faces."""
    return shared("faces", lambda folder: make_faces(folder / "tree")) / "tree"


@pytest.fixture(scope="session")
def face_shards(shared: Shared, faces_tree: Path) -> Path:
    """The 32x32 shards of ``faces_tree``, several a split."""
    return shared("face-shards", lambda folder: make_shards(faces_tree, folder / "shards")) / "shards"
