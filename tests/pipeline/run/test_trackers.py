"""Trackers: refused where they are not installed, no step shown twice, and no failure ends the training."""

from __future__ import annotations

import importlib.util

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from accelerate.utils import ProjectConfiguration
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.cli import _check_without_torch
from pipeline.config.load import build_config
from pipeline.config.schema import ConfigError
from pipeline.run.trackers import FOLDER, PROJECT, TrackerError, Trackers, scalars, start_trackers


class Recorder(GeneralTracker):
    """A tracker that keeps what it is sent, and fails at one step."""

    name, requires_logging_directory, main_process_only = "recorder", False, False

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.steps, self.fails_at = [], fails_at

    @property
    def tracker(self):
        return self

    def log(self, values, step=None, **kwargs):
        if step == self.fails_at:
            raise OSError("the server is away")
        self.steps.append(step)


@pytest.fixture
def accelerator(tmp_path):
    project = ProjectConfiguration(str(tmp_path), str(tmp_path / FOLDER))
    yield Accelerator(cpu=True, log_with=["tensorboard"], project_config=project)
    AcceleratorState._reset_state(True)


def test_a_tracker_named_twice_is_started_once():
    twice = build_config({"training": {"trackers": ["tensorboard", "tensorboard"]}}, "override")
    assert twice.training.trackers == ("tensorboard",)


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module == name else object())
    config = build_config({"training": {"trackers": ["tensorboard", name]}, "data": {"path": "pipe:"}}, "override")
    with pytest.raises(ConfigError, match=f"{name} is not installed: pip install {name}"):
        _check_without_torch(config, None, "auto")


def test_lines_of_metrics_become_named_numbers():
    assert scalars({"step": 5, "loss": 2.0, "mmd": [0.1, 0.2]}) == {
        "train/step": 5,
        "train/loss": 2.0,
        "train/mmd/layer0": 0.1,
        "train/mmd/layer1": 0.2,
    }
    assert scalars({"step": 5, "changed": {"seed": [0, 1]}, "loss": None}) == {"train/step": 5}
    assert scalars({"step": 5, "valid": {"l1": 0.3, "effect": [1.0]}}) == {"valid/l1": 0.3, "valid/effect/layer0": 1.0}


def test_a_resumed_run_shows_each_step_once(accelerator, tmp_path):
    config = build_config({"training": {"trackers": ["tensorboard"]}}, "override")
    # killed at step 17 with a checkpoint at 10: steps 15 and 20 come after it, 15 for the second time
    for begin, logged, steps in ((0, 0, (5, 10, 15)), (10, 15, (15, 20))):
        shown = start_trackers(accelerator, config, tmp_path, begin, logged)
        for step in steps:
            shown.log({"step": step, "loss": float(step)})
        shown.close()
    events = EventAccumulator(str(tmp_path / FOLDER / PROJECT))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 15, 20]
    assert len(list(tmp_path.rglob("hparams.yml"))) == 1


def test_repeated_steps_are_not_sent_again_and_a_failing_tracker_is_dropped():
    late, failing = Recorder(), Recorder(fails_at=20)
    shown = Trackers({"late": late, "failing": failing}, {"late": 15, "failing": 15})
    with pytest.warns(UserWarning, match="failing failed and gets no more metrics: the server is away"):
        for step in (10, 15, 20, 25):
            shown.log({"step": step, "loss": 1.0})
    assert (late.steps, failing.steps) == ([20, 25], [])


def test_a_tracker_that_does_not_start_is_one_sentence(accelerator, tmp_path):
    (tmp_path / FOLDER).write_text("a file where TensorBoard's folder should be")
    config = build_config({"training": {"trackers": ["tensorboard"]}}, "override")
    with pytest.raises(TrackerError, match="a tracker of tensorboard did not start: "):
        start_trackers(accelerator, config, tmp_path, 0, 0)
