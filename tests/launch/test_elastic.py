"""A rank that is killed in mid-epoch: the launcher starts all ranks again from the last checkpoint."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import torch

from tests.launch.runs import exit_code, logged_step, logged_steps, ranks_of, start, trainer_words, wait_until
from tests.pipeline.launching import launch, weights
from tests.processes import Process, free_port

STEPS = 80  # many more than the tests look at: the kill must come in time on a busy machine
EVERY = ("training.checkpoint_every_steps=6", "training.log_every_steps=1")
CONFIG = ["--config_file", "launch/accelerate/cpu-2.yaml", "--main_process_port", "0"]
ONE_MACHINE = ["accelerate", "launch", *CONFIG, "--max_restarts", "3", "pipeline/train.py"]


def run(face_shards: Path, out: Path) -> list[str]:
    return [*ONE_MACHINE, *trainer_words(face_shards, out, *EVERY, steps=STEPS)]


def node(face_shards: Path, out: Path, port: int) -> list[str]:
    """torchrun of one of two nodes with one process each, as docs/launch.md has it."""
    meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "elastic"]
    words = ["torchrun", "--nnodes", "2", "--nproc_per_node", "1", *meet, "--max_restarts", "3", "pipeline/train.py"]
    return [*words, *trainer_words(face_shards, out, *EVERY, steps=STEPS)]


@pytest.fixture(scope="module")
def undisturbed(face_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run on two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = launch(face_shards, out, *EVERY, ranks=2, steps=STEPS)
    assert done.returncode == 0, done.stderr
    return weights(out)


def kill_rank_1(out: Path, launchers: list[Process]) -> list[int]:
    """Kills rank 1 in mid-epoch (of 14 steps) and returns the launchers' exit codes."""
    try:
        wait_until(lambda: logged_step(out) >= 9, "step 9", launchers[0])
        ranks_of(out)[1].kill()
        return [exit_code(launcher) for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()


def assert_as_if_nothing_had_happened(out: Path, said: str, undisturbed: dict[str, torch.Tensor]) -> None:
    (resumed,) = re.findall(r"resumed from \S+ at step (\d+)", said)
    assert 6 <= int(resumed) < STEPS and int(resumed) % 6 == 0, said
    assert logged_steps(out) == list(range(1, STEPS + 1)), "a step is missing in the log, or stands in it twice"
    found = weights(out)
    assert all(torch.equal(value, found[key]) for key, value in undisturbed.items())


def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint_only(
    undisturbed: dict[str, torch.Tensor], face_shards: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    codes = kill_rank_1(out, [start(run(face_shards, out), log)])
    assert codes == [0], log.read_text()
    assert_as_if_nothing_had_happened(out, log.read_text(), undisturbed)


def test_a_rank_killed_on_another_node(undisturbed: dict[str, torch.Tensor], face_shards: Path, tmp_path: Path) -> None:
    out, log, port = tmp_path / "run", tmp_path / "log", free_port()
    codes = kill_rank_1(
        out, [start(node(face_shards, out, port), log, {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}) for _ in range(2)]
    )
    assert codes == [0, 0], log.read_text()
    assert_as_if_nothing_had_happened(out, log.read_text(), undisturbed)


def test_sigterm_to_the_launcher_saves_and_restarts_nothing(face_shards: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    launcher = start(run(face_shards, out), log)
    wait_until(lambda: logged_step(out) >= 2, "step 2", launcher)
    launcher.send_signal(signal.SIGTERM)
    assert exit_code(launcher) != 0
    assert "stopped at step" in log.read_text() and "resumed" not in log.read_text()
    stopped = torch.load(out / "ckpt.pt", weights_only=True)["progress"]["step"]
    assert logged_step(out) == stopped < STEPS
    assert ranks_of(out) == {}
