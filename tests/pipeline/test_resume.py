"""A run killed at any moment goes on as if nothing had happened: bit-equal weights."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from tests.conftest import BIN, REPOSITORY
from tests.pipeline.training import launch, launch_words, wait_for_step, weights

STEPS = 40
EVERY = "training.checkpoint_every_steps=7"


@pytest.fixture(scope="module")
def undisturbed(face_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = launch(face_shards, out, EVERY, steps=STEPS)
    assert done.returncode == 0, done.stderr
    return out


def start(face_shards, out):
    words = launch_words(face_shards, out, EVERY, steps=STEPS)
    return subprocess.Popen(
        [str(BIN / words[0]), *words[1:]],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("moment", [5, 20])
def test_sigkill_and_resume_ends_with_the_same_weights(undisturbed, face_shards, tmp_path, moment):
    out = tmp_path / "run"
    process = start(face_shards, out)
    wait_for_step(out, moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "checkpoints" / f"step-{STEPS:08d}.pt").exists(), "the run ended before it was killed"
    done = launch(face_shards, out, EVERY, steps=STEPS)
    assert done.returncode == 0, done.stderr
    if moment > 7:
        assert "resumed from" in done.stderr
    expected, found = weights(undisturbed), weights(out)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)), "a step stands twice in the log"


def test_sigterm_saves_the_step_it_stopped_at(undisturbed, face_shards, tmp_path):
    out = tmp_path / "run"
    process = start(face_shards, out)
    wait_for_step(out, 5)
    # the launcher forwards SIGTERM to nobody here: the rank itself is what a scheduler signals
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "stopped at step" in errors
    stopped = torch.load(out / "ckpt.pt", weights_only=True)["progress"]["step"]
    assert f"stopped at step {stopped}" in errors
    done = launch(face_shards, out, EVERY, steps=STEPS)
    assert f"at step {stopped}" in done.stderr
    assert all(torch.equal(a, weights(out)[key]) for key, a in weights(undisturbed).items())


def test_resume_on_another_number_of_processes(undisturbed, face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, EVERY, "training.steps=40", steps=20, processes=2).returncode == 0
    done = launch(face_shards, out, EVERY, steps=STEPS)
    assert done.returncode == 0 and "resumed from" in done.stderr


def test_another_configuration_or_other_data_is_refused(undisturbed, face_shards):
    done = launch(face_shards, undisturbed, EVERY, "optimizer.learning_rate=0.1", steps=STEPS + 1)
    assert done.returncode != 0
    assert "optimizer.learning_rate" in done.stderr
