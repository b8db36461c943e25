"""The Slurm files: what shellcheck says of them, and dry runs in which a stub srun starts the real commands."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from pipeline.distributed.signals import STOPPED_EARLY
from tests.conftest import BIN, REPOSITORY, run_command
from tests.launch.runs import exit_code, logged_step, ranks_of, start, trainer_words, wait_until
from tests.preprocess.trees import hashes
from tests.processes import Process, free_port

FOLDER = REPOSITORY / "launch/slurm"
STUBS = Path(__file__).parent / "slurm_stub"
STEPS = 80  # many more than the tests look at: the signal must come in time on a busy machine
EVERY = ("training.checkpoint_every_steps=20", "training.log_every_steps=1")


def job_with_a_free_port() -> int:
    """A job id; the files listen on port 20000 + id % 20000."""
    while (port := free_port()) >= 40_000:
        pass
    return port - 20_000


def slurm(tmp_path: Path, tasks: int = 2) -> dict[str, str]:
    """The environment of a batch job on one node, with the stubs first on the path."""
    return {
        "PATH": f"{STUBS}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": str(job_with_a_free_port()),
        "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NTASKS": str(tasks),
        "PYTHON": str(BIN / "python"),
        "BIN": str(BIN),
        "REQUEUED": str(tmp_path / "requeued"),
    }


def train(shards: Path, out: Path, tmp_path: Path) -> Process:
    words = trainer_words(shards, out, *EVERY, steps=STEPS)
    return start(["bash", "launch/slurm/train.sbatch", *words], tmp_path / "log", slurm(tmp_path))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.sbatch")), ids=lambda file: file.name)
def test_shellcheck_finds_nothing(file: Path) -> None:
    done = run_command("shellcheck", file)
    assert done.returncode == 0, done.stdout


def test_the_exit_code_and_the_signals_are_the_trainers() -> None:
    text = (FOLDER / "train.sbatch").read_text()
    assert re.search(r"^STOPPED_EARLY=(\d+)", text, re.MULTILINE)[1] == str(STOPPED_EARLY)
    for directive in ("--requeue", "--signal=USR1@120", "--open-mode=append"):
        assert f"#SBATCH {directive}\n" in text


def test_usr1_before_the_time_limit_requeues_and_the_next_start_resumes(face_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = train(face_shards, out, tmp_path)
    wait_until(lambda: logged_step(out) >= 5, "step 5", job)
    for process in ranks_of(out).values():
        process.send_signal(signal.SIGUSR1)
    assert exit_code(job) == STOPPED_EARLY, (tmp_path / "log").read_text()
    assert (tmp_path / "requeued").read_text().strip()
    stopped = torch.load(out / "ckpt.pt", weights_only=True)["progress"]["step"]
    assert 5 <= stopped < STEPS

    job = train(face_shards, out, tmp_path)
    assert exit_code(job) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert said.count("2 processes on cpu") == 2
    assert f"at step {stopped}" in said
    assert logged_step(out) == STEPS


def test_a_job_that_slurm_ends_saves_and_is_not_requeued_by_us(face_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = train(face_shards, out, tmp_path)
    wait_until(lambda: logged_step(out) >= 3, "step 3", job)
    os.killpg(job.pid, signal.SIGTERM)  # scancel: the batch shell, srun and the ranks
    assert exit_code(job) == STOPPED_EARLY, (tmp_path / "log").read_text()
    assert (out / "ckpt.pt").exists()
    assert not (tmp_path / "requeued").exists(), "a cancelled job must not come back"


def test_tasks_that_the_nodes_cannot_share_are_refused(tmp_path: Path) -> None:
    job = start(
        ["bash", "launch/slurm/train.sbatch"], tmp_path / "log", {**slurm(tmp_path, 3), "SLURM_JOB_NUM_NODES": "2"}
    )
    assert exit_code(job) == 2
    assert "cannot be shared evenly" in (tmp_path / "log").read_text()


def test_preprocessing_on_dask_makes_the_bytes_of_one_process(
    faces_tree: Path, face_shards: Path, tmp_path: Path
) -> None:
    words = ["celeba", "--source", str(faces_tree), "--out", str(tmp_path / "out"), "--size", "32"]
    job = start(
        ["bash", "launch/slurm/preprocess.sbatch", *words, "--shard-size", "100"], tmp_path / "log", slurm(tmp_path)
    )
    assert exit_code(job) == 0, (tmp_path / "log").read_text()
    assert hashes(tmp_path / "out") == hashes(face_shards)
