"""When a checkpoint is due, what is written while training continues, and which one is found again."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.checkpoint.file import CheckpointError, write_checkpoint
from pipeline.checkpoint.folder import checkpoint_files
from pipeline.checkpoint.manager import CheckpointManager, newest_valid, snapshot
from pipeline.checkpoint.resume import best_l1, find_resume_point
from pipeline.config.schema import TrainingConfig
from tests.pipeline.checkpoint.test_file import state

RARELY = TrainingConfig(checkpoint_every_steps=0, checkpoint_every_minutes=0)


def test_the_written_values_are_those_at_the_time_of_saving(tmp_path):
    weight = torch.zeros(1000)
    saved = {"progress": {"step": 1}, "model": {"w": weight}, "list": [weight, 1, (weight, "x")]}
    manager = CheckpointManager(tmp_path, RARELY)
    assert manager.save(saved)
    weight.fill_(1)
    manager.wait()
    assert not torch.load(tmp_path / "ckpt.pt", weights_only=True)["model"]["w"].any()
    assert snapshot(saved)["list"][2][1] == "x"


def test_a_failed_write_is_raised_by_the_next_call(tmp_path):
    manager = CheckpointManager(tmp_path / "gone", RARELY)
    (tmp_path / "gone").write_text("a file where the folder should be")
    manager.save(state(1))
    with pytest.raises(OSError):
        manager.wait()
    manager.wait()


def test_a_checkpoint_is_due_by_steps_by_validation_and_after_a_postponed_one():
    manager = CheckpointManager(None, TrainingConfig(checkpoint_every_steps=10, checkpoint_every_minutes=0), best=0.5)
    assert [step for step in range(1, 31) if manager.is_due(step, None)] == [10, 20, 30]
    assert manager.is_due(3, 0.4) and not manager.is_due(3, 0.5)
    manager.postpone()
    assert manager.is_due(4, None)


def test_a_worse_checkpoint_never_replaces_the_best_one_after_a_resume(tmp_path):
    manager = CheckpointManager(tmp_path, RARELY)
    for step, error in ((1, 0.4), (2, math.nan), (3, 0.5)):
        manager.save(state(step), error)
    manager.wait()
    point = find_resume_point(tmp_path, "auto")
    assert point is not None and point.state["progress"]["step"] == 3 and best_l1(tmp_path, point) == 0.4
    (tmp_path / "best.pt").unlink()
    assert best_l1(tmp_path, point) == math.inf


@pytest.mark.parametrize("part", ["model", "ema"])
def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path, part):
    manager = CheckpointManager(tmp_path, TrainingConfig(keep_checkpoints=1))
    assert manager.save(state(1))
    broken = {**state(2), "ema": state(2)["model"]}
    next(iter(broken[part].values())).fill_(torch.nan)
    assert not manager.save(broken, valid_l1=0.1)
    manager.wait()
    assert [path.name for path in checkpoint_files(tmp_path)] == ["step-00000001.pt", "ckpt.pt"]
    assert manager.is_due(3, None)


def test_the_best_checkpoint_is_found_when_all_others_are_damaged(tmp_path):
    write_checkpoint(tmp_path, state(1), keep=2, is_best=True)
    write_checkpoint(tmp_path, state(2), keep=1)
    for path in (tmp_path / "checkpoints/step-00000002.pt", tmp_path / "ckpt.pt"):
        path.unlink()
        path.write_bytes(b"")
    found = newest_valid(tmp_path)
    assert found is not None
    path, contents, damaged = found
    assert path.name == "best.pt" and contents["progress"]["step"] == 1 and len(damaged) == 2
    path.unlink()
    with pytest.raises(CheckpointError, match="all checkpoints"):
        newest_valid(tmp_path)
