"""A rank that is killed in mid-epoch: the launcher starts all ranks again, and they go on from the last checkpoint."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import torch

from tests.launch.runs import logged_step, ranks_of, start, trainer_words, wait_until
from tests.pipeline.training import weights

STEPS = 40
EVERY = ("training.checkpoint_every_steps=6", "training.log_every_steps=1")
LAUNCH = ["accelerate", "launch", "--config_file", "launch/accelerate/cpu-2.yaml", "--main_process_port", "0"]
LAUNCH += ["--max_restarts", "3", "pipeline/train.py"]


def run(face_shards: Path, out: Path) -> list[str]:
    return [*LAUNCH, *trainer_words(face_shards, out, *EVERY, steps=STEPS)]


def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint_only(face_shards: Path, tmp_path: Path) -> None:
    calm, out, log = tmp_path / "calm", tmp_path / "run", tmp_path / "log"
    assert start(run(face_shards, calm), tmp_path / "calm.log").wait(120) == 0, (tmp_path / "calm.log").read_text()
    launcher = start(run(face_shards, out), log)
    try:
        wait_until(lambda: logged_step(out) >= 9, "step 9", launcher)  # 336 images: epoch 1 of 14 steps has not ended
        os.kill(ranks_of(out)[1], signal.SIGKILL)
        assert launcher.wait(120) == 0, log.read_text()
    finally:
        launcher.kill()
    said = log.read_text()
    assert said.count("resumed from") == 1, said
    assert "at step 6" in said or "at step 12" in said, said
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1)), "a step is missing in the log, or stands in it twice"
    expected, found = weights(calm), weights(out)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
