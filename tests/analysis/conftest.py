"""One small trained run for all tests of the analyses, made by the public command."""

import pytest

from tests.conftest import run_command
from tests.pipeline.launching import launch


@pytest.fixture(scope="session")
def run(face_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ("training.validate_every_steps=20", "optimizer.learning_rate=0.002")
    done = launch(face_shards, out, *words, steps=40, batch=32)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def export_folder(run, tmp_path_factory):
    """The run as `analysis export` writes it."""
    pytest.importorskip("safetensors")
    folder = tmp_path_factory.mktemp("exported") / "small"
    done = run_command("analysis", "export", run / "ckpt.pt", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder
