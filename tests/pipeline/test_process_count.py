"""The number of processes is not a hyper-parameter: real launches, the same weights."""

import json
import re

import pytest

from tests.pipeline.launching import launch, relative_difference, weights

# at the demo's rate of 2e-3 from the first step Adam would blow rounding up to some 2e-4 in 30 steps
EVERYTHING_RANDOM = (
    *("denoising.salt_and_pepper=0.1", "data.horizontal_flip=true", "data.shift=1", "data.affine=0.05"),
    "optimizer.learning_rate=5e-4",
)


def losses(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(face_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    done = launch(face_shards, out, *EVERYTHING_RANDOM, steps=30)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("processes", [2, 3])
def test_same_global_batch_same_weights(alone, face_shards, tmp_path, processes):
    out = tmp_path / "run"
    words = EVERYTHING_RANDOM
    done = launch(face_shards, out, *words, ranks=processes, steps=30)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{processes} processes on cpu", done.stderr), "too few processes"
    assert relative_difference(weights(alone), weights(out)) < 1e-5
    assert relative_difference(weights(alone, "ema"), weights(out, "ema")) < 1e-5
    assert relative_difference(weights(out, "ema"), weights(out)) < 0.5, "the average does not follow the weights"
    for a, b in zip(losses(alone), losses(out), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["mmd"] == pytest.approx(b["mmd"], abs=1e-5)


def test_a_wrong_scale_of_the_gathered_gradient_would_show(alone, face_shards, tmp_path):
    """The comparison above can fail: half the regularizer's weight is what a gather without gradient costs."""
    out = tmp_path / "run"
    done = launch(face_shards, out, *EVERYTHING_RANDOM, "objective.regularizer_weight=50", steps=30)
    assert done.returncode == 0, done.stderr
    assert relative_difference(weights(alone), weights(out)) > 1e-3


def test_a_batch_that_cannot_be_shared_is_refused(face_shards, tmp_path):
    done = launch(face_shards, tmp_path / "run", ranks=2, batch=25)
    assert done.returncode != 0
    assert "choose --global-batch-size as a multiple of 2" in done.stderr
