"""From which checkpoint a run continues, what may change, and what does not. Fault tests compare the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.checkpoint.file import read_checkpoint, write_checkpoint
from pipeline.checkpoint.folder import checkpoint_files, how_to_continue, set_aside
from pipeline.checkpoint.resume import find_resume_point
from pipeline.cli import _check_without_torch
from pipeline.config.load import build_config
from pipeline.config.schema import ConfigError
from pipeline.run.run_dir import RunFolderError
from tests.pipeline.checkpoint.test_file import state
from tests.pipeline.launching import launch


def run_at(folder: Path, *steps: int, resumed_from: Path | None = None) -> Path:
    """A run's folder with checkpoints at these steps."""
    name = None if resumed_from is None else str(resumed_from.resolve())
    for step in steps:
        write_checkpoint(folder, {**state(step), "resumed_from": name}, keep=9)
    return folder


def test_a_named_checkpoint_starts_an_empty_folder_once(tmp_path):
    given = run_at(tmp_path / "a", 10) / "ckpt.pt"
    point = find_resume_point(tmp_path / "e", str(given))
    assert point is not None and point.path == given and point.resumed_from == str(given.resolve())
    run_at(tmp_path / "e", 120, resumed_from=given)
    again = find_resume_point(tmp_path / "e", str(given))
    assert again is not None and again.state["progress"]["step"] == 120 and not again.notes
    other = find_resume_point(tmp_path / "e", str(run_at(tmp_path / "b", 5) / "ckpt.pt"))
    assert other is not None and other.state["progress"]["step"] == 120
    assert "continues from them and not from" in other.notes[0]


def test_going_back_inside_a_folder_is_refused_unless_the_run_started_there(tmp_path):
    out = run_at(tmp_path / "run", 10, 20, 30)
    early = out / "checkpoints/step-00000010.pt"
    with pytest.raises(RunFolderError, match=r"holds later checkpoints \(step 30\).*train into another --out"):
        find_resume_point(out, str(early))
    newest = find_resume_point(out, str(out / "checkpoints/step-00000030.pt"))
    assert newest is not None and newest.state["progress"]["step"] == 30
    run_at(out, 40, resumed_from=out / "checkpoints/step-00000030.pt")
    restarted = find_resume_point(out, str(out / "checkpoints/step-00000030.pt"))
    assert restarted is not None and restarted.state["progress"]["step"] == 40


def test_never_is_refused_in_a_folder_that_holds_a_run(tmp_path):
    assert find_resume_point(tmp_path, "never") is None
    (run_at(tmp_path, 10) / "ckpt.pt").unlink()
    with pytest.raises(RunFolderError, match="continue it with --resume auto"):
        find_resume_point(tmp_path, "never")


def test_damaged_checkpoints_no_longer_count_as_the_newest(tmp_path):
    out = run_at(tmp_path, 10, 20)
    newest = out / "checkpoints/step-00000020.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    point = find_resume_point(out, "auto")
    assert point is not None and point.state["progress"]["step"] == 10
    set_aside(point.damaged)
    write_checkpoint(out, state(15), keep=1)
    assert [path.name for path in checkpoint_files(out)] == ["step-00000015.pt", "ckpt.pt"]


def test_a_folder_named_by_resume_is_explained(tmp_path):
    config = build_config({"data": {"path": "pipe:"}, "training": {"trackers": []}}, "override")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"--resume .*empty holds no checkpoint; write auto, never, or the path of a"):
        _check_without_torch(config, None, str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"is a folder; name a checkpoint in it, such as .*step-00000010\.pt$"):
        _check_without_torch(config, None, str(run_at(tmp_path / "run", 10)))


def test_the_message_about_continuing_fits_the_command(tmp_path):
    assert "run the same command again" in how_to_continue(tmp_path, "auto")
    run_at(tmp_path, 10)
    assert how_to_continue(tmp_path, "auto").startswith("the same command continues from")
    assert "with --resume auto in place of --resume never" in how_to_continue(tmp_path, "never")


def test_resume_records_allowed_changes_and_refuses_others(face_shards, tmp_path):
    out = tmp_path / "run"
    streamed = ("data.mode=streamed", "growth.share=1")
    assert launch(face_shards, out, *streamed, steps=4).returncode == 0
    done = launch(face_shards, out, *streamed, "model.max_std=0.3", steps=8)
    assert done.returncode == 1
    assert "another configuration (model.max_std: 0.15 → 0.3)" in done.stderr
    done = launch(face_shards, out, *streamed, "data.workers=2", "optimizer.learning_rate=0.001", steps=8)
    assert done.returncode == 0, done.stderr
    assert "data.workers 0 → 2" in done.stderr
    assert "now streamed by 1 x 2: the rest of this epoch will repeat some images" in done.stderr
    assert "the learning rate changes from" in done.stderr
    changed = [line["changed"] for line in map(json.loads, (out / "metrics.jsonl").open()) if "changed" in line]
    assert changed == [{"data.workers": [0, 2], "optimizer.learning_rate": [0.002, 0.001], "training.steps": [4, 8]}]
    assert read_checkpoint(out / "ckpt.pt")["progress"]["growth_steps"] == 4, "growth keeps its course"
    seconds = [read_checkpoint(path)["progress"]["seconds"] for path in sorted((out / "checkpoints").glob("*.pt"))]
    assert 0 < seconds[0] < seconds[1], "the time before the resume counts"
    done = launch(face_shards, tmp_path / "copy", *streamed, "--resume", str(out / "ckpt.pt"), steps=8)
    assert done.returncode == 0 and read_checkpoint(tmp_path / "copy/ckpt.pt")["progress"]["step"] == 8
