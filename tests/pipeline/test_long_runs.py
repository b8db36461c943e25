"""What a week of training rests on: the rhythm of checkpoints, the best of them, steps that are not finite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.distributed.setup import compile_vlae
from pipeline.model.vlae import VLAE
from tests.pipeline.launching import launch, relative_difference, weights

CONSTANT = "optimizer.schedule=constant"


def steps_kept(out: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*.pt"))


def test_checkpoints_by_steps_by_minutes_and_of_the_best_validation(face_shards, tmp_path):
    out = tmp_path / "run"
    rhythm = (
        "training.checkpoint_every_steps=0",
        "training.checkpoint_every_minutes=0",
        "training.keep_checkpoints=50",
    )
    # a rate that makes training worse after its first steps: the best validation is not the last
    worse = ("optimizer.learning_rate=0.3", CONSTANT, "training.validate_every_steps=2", "training.ema_images=0")
    done = launch(face_shards, out, *rhythm, *worse, steps=12)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    valid = {line["step"]: line["valid"]["l1"] for line in lines if "valid" in line}
    best = min(valid, key=valid.__getitem__)
    assert torch.load(out / "best.pt", weights_only=True)["progress"]["step"] == best
    lowest = [step for step in valid if valid[step] == min(v for s, v in valid.items() if s <= step)]
    assert steps_kept(out) == sorted({*lowest, 12})
    minutes = ("training.checkpoint_every_steps=0", "training.checkpoint_every_minutes=0.00001")
    assert launch(face_shards, tmp_path / "often", *minutes, "training.keep_checkpoints=50", steps=4).returncode == 0
    assert steps_kept(tmp_path / "often") == [1, 2, 3, 4]


def test_a_run_that_does_not_stay_finite_names_step_place_and_checkpoint(face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, CONSTANT, steps=6).returncode == 0
    good = weights(out)
    state = torch.load(out / "ckpt.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())
    overflow = ("objective.reconstruction_weight=1e39", "training.max_non_finite_steps=3", "training.log_every_steps=1")
    done = launch(face_shards, tmp_path / "bad", CONSTANT, *overflow, steps=20)
    assert done.returncode == 1
    assert "not finite for 3 steps in a row, up to step 3" in done.stderr
    assert "there is no checkpoint yet" in done.stderr
    assert "in every layer (the loss itself was not finite)" in done.stderr, done.stderr
    assert all(torch.equal(w, weights(out)[key]) for key, w in good.items())


def test_a_run_that_ends_without_finite_gradients_is_not_done(face_shards, tmp_path):
    out = tmp_path / "run"
    assert launch(face_shards, out, CONSTANT, steps=4).returncode == 0
    overflow = ("training.log_every_steps=2", "optimizer.learning_rate=1e38", "training.validate_every_steps=4")
    done = launch(face_shards, out, CONSTANT, *overflow, steps=8)
    assert done.returncode == 1 and "done in" not in done.stderr, done.stderr
    assert "the run ended at step 8 and is not finite" in done.stderr
    assert "the last good checkpoint is" in done.stderr and "step-00000004.pt" in done.stderr
    assert steps_kept(out) == [4]
    losses = [json.loads(line).get("loss", 0) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] is None or losses[-2] is None, "a skipped step does not look perfect"
    done = launch(face_shards, out, CONSTANT, "optimizer.learning_rate=0.001", steps=8)
    assert done.returncode == 0, "the remedy is accepted"


def test_on_two_then_one_then_four_processes_the_run_is_that_of_one(face_shards, tmp_path):
    steady = ("optimizer.learning_rate=5e-4", CONSTANT)
    assert launch(face_shards, tmp_path / "one", *steady, steps=18).returncode == 0
    out = tmp_path / "changing"
    for processes, steps in ((2, 6), (1, 12), (4, 18)):
        done = launch(face_shards, out, *steady, ranks=processes, steps=steps)
        assert done.returncode == 0, done.stderr
        assert f"{processes} process" in done.stderr
    assert relative_difference(weights(tmp_path / "one"), weights(out)) < 1e-5
    curves = [
        {
            line["step"]: line["loss"]
            for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            if "loss" in line
        }
        for run in (tmp_path / "one", out)
    ]
    # log windows end where a run ends, so only the common steps can be compared
    assert curves[0][5] == pytest.approx(curves[1][5], rel=1e-4)
    assert curves[0][18] == pytest.approx(curves[1][18], rel=0.2)


def test_the_compiled_ladder_computes_the_same_without_a_graph_break():
    torch.manual_seed(0)
    vlae = VLAE(ModelConfig(layers=("8/2", "fc16"), latents=(2, 2)), (3, 16, 16))
    images = torch.randn(4, 3, 16, 16)

    def gradients() -> list[torch.Tensor]:
        vlae.zero_grad()
        vlae.decode([q.mean for q in vlae.encode(images)]).abs().mean().backward()
        return [p.grad.clone() for p in vlae.parameters() if p.grad is not None]

    plain = gradients()
    torch._dynamo.utils.counters.clear()
    compile_vlae(vlae)
    compiled = gradients()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "encoder and decoder were compiled"
    assert not torch._dynamo.utils.counters["graph_break"]
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
