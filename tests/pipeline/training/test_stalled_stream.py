"""A stream that stops coming: a request to stop is obeyed while the trainer waits, and no step is lost."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import torch

from tests import processes
from tests.pipeline.data.http_server import Network, served

SECONDS_TO_STOP = 5


def logged_steps(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def test_sigterm_is_obeyed_while_the_loader_waits(face_shards, tmp_path):
    network, out = Network(), tmp_path / "run"
    with served(face_shards, network) as address:
        words = ["--recipe", "tests/pipeline/small.yaml", "--data", address, "--out", str(out)]
        words += ["training.steps=100000", "training.global_batch_size=24", "training.mixed_precision=no"]
        words += ["data.shuffle_window=48", "training.log_every_steps=1"]
        log = tmp_path / "log"
        trainer = processes.start(["python", "pipeline/train.py", *words], processes.environment({}), log, log)
        while not logged_steps(out) and trainer.poll() is None:
            time.sleep(0.1)
        network.stalled = True
        before = -1
        while (now := max(logged_steps(out), default=0)) != before:
            before = now
            time.sleep(3)
        begin = time.monotonic()
        trainer.send_signal(signal.SIGTERM)
        trainer.wait(60)
        seconds = time.monotonic() - begin
    assert trainer.returncode == 75, log.read_text()
    assert seconds < SECONDS_TO_STOP + 2, "the process takes up to two seconds to end"
    state = torch.load(out / "ckpt.pt", weights_only=True)
    assert state["progress"]["step"] == before
