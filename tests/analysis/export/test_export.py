"""Exported models through the public command: what others load gives what the checkpoint gives."""

import hashlib
import json
import runpy
import shlex
import shutil
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.cli import app
from analysis.export import export
from analysis.export.model_card import training_command
from pipeline.checkpoint.file import load_vlae, write_checkpoint
from pipeline.config.load import parse_overrides, recipe_names, resolve
from pipeline.model.pretrained import open_pretrained


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


def report_on(digest, folder):
    """The metrics.json of a report on the checkpoint with this SHA-256."""
    error = {"n": 77, "l1": 0.1234, "psnr": 11.0, "ssim": 0.3}
    path = folder / "metrics.json"
    path.write_text(
        json.dumps({"reconstruction": {"valid": error}, "provenance": {"checkpoint_sha256": digest}}), encoding="utf-8"
    )
    return path


def test_onnx_gives_what_the_checkpoint_gives(run, expected, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ("--metrics", report_on("0" * 64, tmp_path), "--out", tmp_path / "out")
    done = run_export(run / "ckpt.pt", "--format", "onnx", *words)
    assert done.exit_code == 0, done.stderr
    assert "0.1234" not in (tmp_path / "out/README.md").read_text()
    assert "report on another checkpoint" in done.stderr
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / f"out/{part}.onnx") for part in ("encoder", "decoder"))
    assert [output.name for output in encoder.get_outputs()][:3] == ["mean_0", "std_0", "mean_1"]
    images, means, again = expected
    for count in (1, 5):  # another batch size than the traced one, and the one that exporters like to fix
        found = encoder.run(None, {"images": images[:count].numpy()})[::2]
        for one, other in zip(found, means, strict=True):
            np.testing.assert_allclose(one, other[:count].numpy(), atol=1e-4)
        (decoded,) = decoder.run(None, {f"z_{layer}": z for layer, z in enumerate(found)})
        np.testing.assert_allclose(decoded, again[:count].numpy(), atol=1e-4)


def test_torch_export_gives_what_the_checkpoint_gives(run, expected, tmp_path):
    digest = hashlib.sha256((run / "ckpt.pt").read_bytes()).hexdigest()
    words = ("--metrics", report_on(digest, tmp_path), "--out", tmp_path / "out")
    done = run_export(run / "ckpt.pt", "--format", "torch-export", *words)
    assert done.exit_code == 0, done.stderr
    assert "0.1234" in (tmp_path / "out/README.md").read_text()
    assert "report on another checkpoint" not in done.stderr
    encoder, decoder = (torch.export.load(tmp_path / f"out/{part}.pt2").module() for part in ("encoder", "decoder"))
    images, means, again = expected
    found = encoder(images)[::2]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, means, strict=True))
    assert torch.allclose(decoder(*found), again, atol=1e-5)


def test_the_folder_is_complete_and_its_card_says_what_it_is(run, expected, export_folder, face_shards):
    names = {path.name for path in export_folder.iterdir()}
    files = {"config.json", "model.safetensors", "latents.safetensors", "findings.json", "faces.png", "README.md"}
    assert names == files | {"layers.png"}, "nothing half-written is left"
    model = open_pretrained(export_folder)
    images, _, again = expected
    with torch.no_grad():
        assert torch.allclose(model.vlae.decode([q.mean for q in model.vlae.encode(images)]), again, atol=1e-5)
    state = torch.load(run / "ckpt.pt", weights_only=True)
    assert model.config.manifest_sha256 == state["manifest_digest"] and model.config.step == 40
    crop = json.loads((face_shards / "manifest.json").read_text())["crop"]
    assert model.config.image_processing.crop.model_dump(mode="json") == crop
    assert model.attributes and model.groups and model.findings.targets and len(model.faces) >= 9
    assert all(layer.sentence for layer in model.findings.layers)
    card = (export_folder / "README.md").read_text()
    for said in (
        state["manifest_digest"],
        "step 40",
        "drawn by mmd-vlae",
        "float32 in [-1, 1]",
        "name: small",
        "@article",
    ):
        assert said in card, said
    assert card.startswith("---\n") and str(face_shards) not in card


def test_the_card_tells_the_commands_whole(run, tmp_path):
    done = run_export(run / "ckpt.pt", "--format", "torch-export", "--license", "mit", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    card = (tmp_path / "out/README.md").read_text()
    assert "analysis export ckpt.pt --format torch-export --license mit" in card
    assert "train.py --recipe recipe.yaml\n" in card, "the recipe did not come with the project; the card holds it"


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_training_command_of_a_card_gives_the_same_configuration(recipe):
    words = ["training.steps=7", "training.mixed_precision='no'", "optimizer.learning_rate=1e-5", "model.norm=group"]
    words += ["optimizer.betas=[0.8, 0.9]", "objective.kernel.bandwidth=null", "denoising.gaussian=0.5"]
    config = resolve(recipe, parse_overrides(words))
    words = shlex.split(training_command(config))
    found, overrides = words[4], words[5:]
    assert words[:5] == ["accelerate", "launch", "pipeline/train.py", "--recipe", recipe]
    assert resolve(found, parse_overrides(overrides)) == config and "training.steps=7" in overrides


def test_an_export_says_of_layers_what_the_report_says(run, made_report, tmp_path):
    metrics = made_report / "report/metrics.json"
    done = run_export(run / "ckpt.pt", "--metrics", metrics, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    findings, page = open_pretrained(tmp_path / "out").findings, (made_report / "report/index.html").read_text()
    for layer in findings.layers:
        assert layer.sentence.split(" ", 2)[2] in page
    factors = json.loads(metrics.read_text())["factors"]
    assert {t.name: list(t.scores) for t in findings.targets if t.kind == "factor"} == {
        name: row["r2"] for name, row in factors.items()
    }
    damaged = json.loads(metrics.read_text()) | {"layers": [{}]}
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    refused = run_export(run / "ckpt.pt", "--metrics", tmp_path / "damaged.json", "--out", tmp_path / "b")
    assert refused.exit_code == 1 and "is not the metrics.json of a report" in refused.stderr


def test_an_export_without_shards_says_what_it_lacks(run, tmp_path):
    shutil.copy(run / "ckpt.pt", tmp_path / "ckpt.pt")
    (tmp_path / "none").mkdir()
    refused = run_export(tmp_path / "ckpt.pt", "--data", tmp_path / "none")
    assert refused.exit_code == 1 and "manifest.json" in refused.stderr

    state = torch.load(run / "ckpt.pt", weights_only=True)
    state["data"] = str(tmp_path / "gone")
    write_checkpoint(tmp_path / "moved", state, keep=1)
    done = run_export(tmp_path / "moved/ckpt.pt", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "will hold no faces" in done.stderr
    model = open_pretrained(tmp_path / "out")
    assert model.faces is None and not model.attributes
    assert [len(layer.directions) for layer in model.latents] == list(model.vlae.latent_sizes)


def test_a_space_is_an_export_with_an_app(export_folder, tmp_path):
    done = run_export(export_folder, "--format", "space", "--out", tmp_path / "space")
    assert done.exit_code == 0, done.stderr
    card = (tmp_path / "space/README.md").read_text()
    assert "sdk: gradio" in card.split("---")[1] and "app_file: app.py" in card.split("---")[1]
    pytest.importorskip("gradio")
    assert runpy.run_path(str(tmp_path / "space/app.py"))["demo"].title == "A face in 3 layers"
    assert (tmp_path / "space/requirements.txt").read_text().startswith("mmd-vlae[explore")
    assert open_pretrained(tmp_path / "space").config.name == "small"


def test_a_failed_export_gives_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "broken.json").write_text("{")
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "onnxscript", None)
        failed = run_export(run / "ckpt.pt", "--format", "onnx", "--out", tmp_path / "a")
        assert failed.exit_code == 1 and "mmd-vlae[export]" in failed.stderr
    failed = run_export(run / "ckpt.pt", "--metrics", tmp_path / "broken.json", "--out", tmp_path / "b")
    assert failed.exit_code == 1 and "broken.json" in failed.stderr
    assert run_export(run / "ckpt.pt", "--format", "pickle").exit_code == 2
    assert run_export(tmp_path / "none.pt").exit_code == 2
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    failed = run_export(run / "ckpt.pt", "--format", "torch-export", "--out", tmp_path / "c")
    assert failed.exit_code == 1 and "differs by" in failed.stderr
    assert not list((tmp_path / "c").iterdir()), "what differs is not kept"
    for failure in (failed,):
        assert "Traceback" not in failure.stderr and len(failure.stderr.strip().splitlines()) == 1
