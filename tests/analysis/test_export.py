"""Exported models through the public command: what others load gives what the checkpoint gives."""

import json
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.cli import app
from analysis.export import export
from pipeline.checkpoint.file import load_vlae
from pipeline.config.schema import ModelConfig
from pipeline.model.vlae import VLAE


def run_export(*words):
    return CliRunner().invoke(app, ["export", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def expected(run):
    """(images, means, reconstructions) of the checkpoint itself, for a batch that no exporter has seen."""
    vlae, _, _ = load_vlae(run / "ckpt.pt")
    images = torch.rand(5, *vlae.image_shape, generator=torch.Generator().manual_seed(9)) * 2 - 1
    with torch.no_grad():
        means = [q.mean for q in vlae.encode(images)]
        return images, means, vlae.decode(means)


def test_onnx_gives_what_the_checkpoint_gives(run, expected, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    done = run_export(run / "ckpt.pt", "--format", "onnx", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / f"{part}.onnx") for part in ("encoder", "decoder"))
    assert [output.name for output in encoder.get_outputs()][:3] == ["mean_0", "std_0", "mean_1"]
    images, means, again = expected
    for count in (1, 5):  # another batch size than the traced one, and the one that exporters like to fix
        found = encoder.run(None, {"images": images[:count].numpy()})[::2]
        for one, other in zip(found, means, strict=True):
            np.testing.assert_allclose(one, other[:count].numpy(), atol=1e-4)
        (decoded,) = decoder.run(None, {f"z_{layer}": z for layer, z in enumerate(found)})
        np.testing.assert_allclose(decoded, again[:count].numpy(), atol=1e-4)


def test_torch_export_gives_what_the_checkpoint_gives(run, expected, tmp_path):
    done = run_export(run / "ckpt.pt", "--format", "torch-export", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    encoder, decoder = (torch.export.load(tmp_path / f"{part}.pt2").module() for part in ("encoder", "decoder"))
    images, means, again = expected
    found = encoder(images)[::2]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, means, strict=True))
    assert torch.allclose(decoder(*found), again, atol=1e-5)


def test_safetensors_are_the_weights_and_the_card_says_what_they_are(run, expected, face_shards, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    report = {
        "step": 40,
        "reconstruction": {"valid": {"n": 77, "l1": 0.1234, "psnr": 11.0, "ssim": 0.3}},
        "layers": [{"effect": 0.5}, {"effect": 0.25}],
    }
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    out = tmp_path / "out"
    done = run_export(run / "ckpt.pt", "--out", out, "--metrics", tmp_path / "metrics.json")
    assert done.exit_code == 0, done.stderr
    described = json.loads((out / "config.json").read_text())
    vlae = VLAE(ModelConfig(**described["model"]), tuple(described["image_shape"])).eval()
    weights = [safetensors.load_file(out / f"{part}.safetensors") for part in ("encoder", "decoder")]
    vlae.load_state_dict(weights[0] | weights[1])
    images, _, again = expected
    with torch.no_grad():
        assert torch.allclose(vlae.decode([q.mean for q in vlae.encode(images)]), again, atol=1e-5)
    card = (out / "README.md").read_text()
    state = torch.load(run / "ckpt.pt", weights_only=True)
    for said in (state["manifest_digest"], "step 40", "drawn by mmd-vlae", "0.1234", "77 held-out", "name: demo"):
        assert said in card, said
    assert str(face_shards) not in card
    assert not list(out.glob(".*")), "nothing half-written is left"


def test_the_card_takes_no_figures_of_another_step(run, tmp_path):
    pytest.importorskip("safetensors")
    report = {"step": 39, "reconstruction": {"valid": {"l1": 0.1234}}, "layers": []}
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    done = run_export(run / "ckpt.pt", "--out", tmp_path / "out", "--metrics", tmp_path / "metrics.json")
    assert done.exit_code == 0, done.stderr
    card = (tmp_path / "out/README.md").read_text()
    assert "0.1234" not in card and "of the valid split, in training" in card


def test_what_cannot_be_exported_is_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "broken.json").write_text("{")
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "onnxscript", None)
        failed = run_export(run / "ckpt.pt", "--format", "onnx", "--out", tmp_path / "a")
        assert failed.exit_code == 1 and "mmd-vlae[export]" in failed.stderr
    failed = run_export(run / "ckpt.pt", "--metrics", tmp_path / "broken.json", "--out", tmp_path / "b")
    assert failed.exit_code == 1 and "broken.json" in failed.stderr
    assert run_export(run / "ckpt.pt", "--format", "pickle").exit_code == 2
    assert run_export(tmp_path / "none.pt").exit_code == 1
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    failed = run_export(run / "ckpt.pt", "--format", "torch-export", "--out", tmp_path / "c")
    assert failed.exit_code == 1 and "differs by" in failed.stderr
    assert not list((tmp_path / "c").iterdir()), "what differs is not kept"
    for failure in (failed,):
        assert "Traceback" not in failure.stderr and len(failure.stderr.strip().splitlines()) == 1
