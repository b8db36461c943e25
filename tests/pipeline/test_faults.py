"""Faults of a run that is made of real processes: ranks killed, a folder taken, a disk full."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import BIN, REPOSITORY
from tests.pipeline.training import launch, launch_words, wait_for_step, weights

STEPS = 30
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


def ranks_of(launcher: subprocess.Popen) -> list[psutil.Process]:
    return [p for p in psutil.Process(launcher.pid).children(recursive=True) if "pipeline/train.py" in p.cmdline()]


@pytest.fixture(scope="module")
def undisturbed(face_shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = launch(face_shards, out, *SETTINGS, processes=2, steps=STEPS)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "launcher"])
def test_sigkill_of_one_ends_all_and_the_run_goes_on(undisturbed, face_shards, tmp_path, victim):
    out = tmp_path / "run"
    launcher = start(face_shards, out, processes=2)
    wait_for_step(out, 10)
    ranks = ranks_of(launcher)
    assert len(ranks) == 2
    if victim == "launcher":
        launcher.kill()
    else:
        next(p for p in ranks if p.environ()["RANK"] == victim[-1]).kill()
    launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not psutil.wait_procs(ranks, timeout=30)[1], "a rank outlived the run"
    done = launch(face_shards, out, *SETTINGS, processes=2, steps=STEPS)
    assert done.returncode == 0 and "resumed from" in done.stderr, done.stderr
    assert all(torch.equal(w, weights(out)[key]) for key, w in weights(undisturbed).items())


def test_a_second_run_into_the_folder_is_refused_and_a_dead_ones_lock_is_not_in_the_way(face_shards, tmp_path):
    out = tmp_path / "run"
    first = start(face_shards, out, processes=1)
    wait_for_step(out, 5)
    (rank,) = ranks_of(first)
    rank.send_signal(signal.SIGSTOP)  # alive, and sure to hold the folder while the other looks
    second = launch(face_shards, out, *SETTINGS, steps=STEPS)
    assert second.returncode == 1
    assert f"another run is training into {out}" in second.stderr
    rank.kill()
    first.communicate()
    assert launch(face_shards, out, *SETTINGS, steps=STEPS).returncode == 0


def test_a_full_disk_costs_nothing_that_was_finished(undisturbed, face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, *SETTINGS, processes=2, steps=14).returncode == 0
    before = {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()}
    run = start(face_shards, out, processes=2, largest_file=20)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "checkpoints already written are whole" in said[0], errors
    assert {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
    assert not list(out.rglob("*.tmp"))
    done = launch(face_shards, out, *SETTINGS, processes=2, steps=STEPS)
    assert done.returncode == 0 and "at step 14" in done.stderr
    assert all(torch.equal(w, weights(out)[key]) for key, w in weights(undisturbed).items())
