"""What a resumed run must not change. That it goes on as if nothing had happened is drilled: tests/faults."""

from tests.pipeline.launching import launch


def test_another_configuration_is_refused(face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, steps=2).returncode == 0
    done = launch(face_shards, out, "optimizer.learning_rate=0.1", steps=3)
    assert done.returncode != 0
    assert "optimizer.learning_rate" in done.stderr
