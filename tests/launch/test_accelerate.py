"""The files in launch/accelerate/ start as many processes as they say, on one machine and on several."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY, run_command
from tests.launch.runs import exit_code, start, trainer_words
from tests.pipeline.launching import weights
from tests.processes import free_port

FOLDER = REPOSITORY / "launch/accelerate"
STEPS = 4


def accelerate(file: str, *more: object) -> list[str]:
    """The launcher's words; on a machine without GPU the GPU files start CPU processes."""
    return ["accelerate", "launch", "--config_file", f"launch/accelerate/{file}", *map(str, more), "pipeline/train.py"]


def world_size(text: str) -> int:
    """The number of processes that the first line of a run's log tells."""
    found = re.search(r"(\d+) process(?:es)? on cpu", text)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_how_it_is_used_and_leaves_the_precision_to_the_recipe(path: Path) -> None:
    text = path.read_text()
    assert f"--config_file launch/accelerate/{path.name}" in text.partition("compute_environment")[0]
    settings = yaml.safe_load(text)
    assert settings["mixed_precision"] == "no", "a precision here would be set behind the recipe's back"
    assert settings["num_processes"] % settings["num_machines"] == 0


@pytest.fixture(scope="module")
def alone(face_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = run_command(*accelerate("cpu-1.yaml"), *trainer_words(face_shards, out, steps=STEPS))
    assert done.returncode == 0, done.stderr
    assert world_size(done.stderr) == 1
    return out


# cpu-2.yaml is what tests/pipeline/test_process_count.py launches
@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [("gpu-1.yaml", (), 1), ("gpu-8.yaml", ("--main_process_port", 0, "--num_processes", 2), 2)],
)
def test_a_real_launch(file: str, flags: tuple[object, ...], expected: int, face_shards: Path, tmp_path: Path) -> None:
    words = [*accelerate(file, *flags), *trainer_words(face_shards, tmp_path / "run", steps=STEPS)]
    done = run_command(*words)
    assert done.returncode == 0, done.stderr
    assert world_size(done.stderr) == expected
    assert torch.load(tmp_path / "run/ckpt.pt", weights_only=True)["progress"]["step"] == STEPS


def test_two_nodes_over_loopback_train_one_model(alone: Path, face_shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    meet = ("--num_machines", 2, "--num_processes", 2, "--main_process_ip", "127.0.0.1", "--main_process_port")
    port = free_port()
    logs = [tmp_path / f"node-{node}.log" for node in range(2)]
    nodes = []
    for node, log in enumerate(logs):
        launcher = accelerate("multi-node.yaml", "--machine_rank", node, *meet, port)
        nodes.append(start([*launcher, *trainer_words(face_shards, out, steps=STEPS)], log))
    try:
        codes = [exit_code(node) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], "\n".join(said)
    (main,) = [text for text in said if " on cpu" in text]
    assert world_size(main) == 2
    for key, expected in weights(alone).items():
        torch.testing.assert_close(weights(out)[key], expected, rtol=1e-4, atol=1e-5)
