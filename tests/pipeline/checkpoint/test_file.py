"""The checkpoint file: checksum, atomic writes, and a message that names the problem of a bad file."""

import pytest
import torch

from pipeline.checkpoint.file import CheckpointError, load_vlae, read_checkpoint
from pipeline.checkpoint.file import write_checkpoint as write
from pipeline.checkpoint.folder import sweep_leftovers
from pipeline.checkpoint.manager import newest_valid
from pipeline.config.schema import Config, ModelConfig
from pipeline.model.vlae import VLAE

MODEL = ModelConfig(layers=("8/2", "fc16"), latents=(2, 2))


def state(step: int = 7) -> dict:
    torch.manual_seed(step)
    vlae = VLAE(MODEL, (3, 8, 8))
    return {
        "schema_version": 1,
        "config": Config(model=MODEL).plain(),
        "image_shape": [3, 8, 8],
        "model": vlae.state_dict(),
        "ema": None,
        "progress": {"step": step},
        "manifest_digest": "0" * 64,
    }


def test_round_trip_and_newest_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, state(step), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000003.pt", "step-00000004.pt"]
    assert read_checkpoint(tmp_path / "ckpt.pt")["progress"]["step"] == 4
    plain = torch.load(tmp_path / "ckpt.pt", weights_only=True)  # an ordinary file of torch.save
    assert torch.equal(
        plain["model"]["decoder.contributions.0.0.weight"],
        load_vlae(tmp_path / "ckpt.pt")[0].state_dict()["decoder.contributions.0.0.weight"],
    )


def test_a_damaged_newest_checkpoint_is_skipped_and_named(tmp_path):
    for step in (1, 2):
        write(tmp_path, state(step), keep=3)
    newest = tmp_path / "checkpoints/step-00000002.pt"
    newest.write_bytes(newest.read_bytes()[:500])  # a hard link: ckpt.pt is damaged too
    path, found, damaged = newest_valid(tmp_path)
    assert found["progress"]["step"] == 1 and path.name == "step-00000001.pt"
    assert newest in damaged
    assert newest_valid(tmp_path / "nothing") is None


def test_a_run_without_a_valid_checkpoint_does_not_start_again(tmp_path):
    write(tmp_path, state(), keep=1)
    for path in [tmp_path / "ckpt.pt", *(tmp_path / "checkpoints").iterdir()]:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"all checkpoints .* are damaged: .* is empty"):
        newest_valid(tmp_path)


def test_other_schema_and_other_model_are_named(tmp_path):
    write(tmp_path, {**state(), "schema_version": 99}, keep=1)
    with pytest.raises(CheckpointError, match="schema version 99"):
        read_checkpoint(tmp_path / "ckpt.pt")
    other = state()
    other["config"]["model"]["layers"] = ["4/2", "fc16"]
    write(tmp_path, other, keep=1)
    with pytest.raises(CheckpointError, match="another model"):
        load_vlae(tmp_path / "ckpt.pt")


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, state(1), keep=2)

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, state(2), keep=2)
    assert read_checkpoint(tmp_path / "ckpt.pt")["progress"]["step"] == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.pt"]


def test_unfinished_files_of_a_killed_run_are_removed(tmp_path):
    write(tmp_path, state(), keep=1)
    (tmp_path / "checkpoints/.step-00000009.pt.tmp").write_bytes(b"half")
    sweep_leftovers(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000007.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        ((16).to_bytes(8, "little") + b'{"a": 1}        ' + bytes(64), "is a safetensors export"),
        (b"PK\x03\x04" + bytes(200), "is truncated"),
        (b"\x80\x04K\x01.", "is a pickle file"),
        (b"some text", "is not a checkpoint of this trainer"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, message, tmp_path):
    (tmp_path / "ckpt.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "ckpt.pt")


def test_a_folder_and_a_file_saved_again_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder; name a checkpoint in it, such as"):
        read_checkpoint(write(tmp_path, state(), keep=1).parent.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty holds no checkpoint; name the ckpt\.pt of a run"):
        read_checkpoint(tmp_path / "empty")
    torch.save(state(), tmp_path / "again.pt")
    with pytest.raises(CheckpointError, match="has no checksum: another program saved it"):
        read_checkpoint(tmp_path / "again.pt")
