"""One small trained run for all tests of the analyses, made by the public command."""

import pytest

from tests.pipeline.training import launch


@pytest.fixture(scope="session")
def run(face_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ("training.validate_every_steps=20", "optimizer.learning_rate=0.002")
    done = launch(face_shards, out, *words, steps=40, batch=32)
    assert done.returncode == 0, done.stderr
    return out
