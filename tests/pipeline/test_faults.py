"""A disk that is full for a run of two processes, where no small one can be mounted (tests/faults/disk_full.py)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import BIN, REPOSITORY
from tests.pipeline.launching import launch, launch_words

STEPS = 22
SETTINGS = ("training.checkpoint_every_steps=7", "optimizer.schedule=constant")


def start(shards: Path, out: Path, *, processes: int, largest_file: int | None = None) -> subprocess.Popen:
    """The launcher of a run; ``largest_file`` (KiB) makes every longer write fail, as on a full disk."""
    program, *words = launch_words(shards, out, *SETTINGS, processes=processes, steps=STEPS)
    limit = ["bash", "-c", f'trap "" XFSZ; ulimit -f {largest_file}; exec "$@"', "bash"] if largest_file else []
    return subprocess.Popen(
        [*limit, str(BIN / program), *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_full_disk_costs_nothing_that_was_finished(face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, *SETTINGS, ranks=2, steps=14).returncode == 0
    before = {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    run = start(face_shards, out, processes=2, largest_file=20)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "the checkpoints written so far are complete" in said[0], errors
    assert {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    assert not list(out.rglob("*.tmp"))
    done = launch(face_shards, out, *SETTINGS, ranks=2, steps=STEPS)
    assert done.returncode == 0 and "at step 14" in done.stderr
