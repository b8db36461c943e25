"""Shared material of the tests: a small tree of drawn faces and its shards, made by the public commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

torch.set_num_threads(1)


def run_command(*words: object, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    """Runs a console script of this environment in the repository, as a user would."""
    program, *rest = [str(word) for word in words]
    return subprocess.run(
        [str(BIN / program), *rest],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def faces_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CelebA-format tree of 420 drawn faces (read-only for tests)."""
    tree = tmp_path_factory.mktemp("faces") / "tree"
    done = run_command("preprocess", "faces", "--out", tree, "--count", 420, "--seed", 3, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return tree


@pytest.fixture(scope="session")
def face_shards(faces_tree: Path) -> Path:
    """The 32x32 shards of ``faces_tree``, several a split (read-only for tests)."""
    shards = faces_tree.parent / "shards"
    done = run_command(
        *("preprocess", "celeba", "--source", faces_tree, "--out", shards),
        *("--size", 32, "--shard-size", 100, "--workers", 1),
    )
    assert done.returncode == 0, done.stderr
    return shards
