"""Exported folders: what is written is read back, and what does not fit is refused by name."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.schema import ModelConfig
from pipeline.model.pretrained import (
    CONFIG,
    FACES,
    FINDINGS,
    LATENTS,
    WEIGHTS,
    open_pretrained,
    read_folder,
    write_folder,
)
from pipeline.model.pretrained_schema import (
    Findings,
    ImageProcessing,
    LayerLatents,
    Pretrained,
    PretrainedConfig,
    PretrainedError,
)
from pipeline.model.vlae import VLAE
from preprocess.shards.manifest import Crop

SIZES = (3, 2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(layers=("8/2", "fc16"), latents=SIZES)
    latents = [LayerLatents(torch.zeros(d), torch.ones(d), torch.eye(d), torch.ones(d)) for d in SIZES]
    described = PretrainedConfig(
        name="tiny",
        model=config,
        image_processing=ImageProcessing(crop=Crop(kind="square"), resample="bilinear", image_shape=(16, 16, 3)),
        attributes=("Smiling",),
        faces=9,
    )
    faces = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    smiling = [torch.ones(1, d) for d in SIZES]
    vlae = VLAE(config, (3, 16, 16)).eval()
    return Pretrained(described, vlae, latents, {"Smiling": smiling}, {}, Findings(held_out=9), faces)


@pytest.fixture
def folder(model, tmp_path):
    write_folder(tmp_path / "export", model)
    return tmp_path / "export"


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.0), ("float16", 0.01)])
def test_a_folder_gives_the_model_back(model, tmp_path, precision, tolerance):
    write_folder(tmp_path / "export", model, precision)
    again = open_pretrained(tmp_path / "export")
    assert again.config == model.config and again.findings == model.findings
    np.testing.assert_array_equal(again.faces, model.faces)
    codes = [torch.ones(2, d) for d in SIZES]
    torch.testing.assert_close(again.vlae.decode(codes), model.vlae.decode(codes), atol=tolerance, rtol=0)
    torch.testing.assert_close(again.attributes["Smiling"][1], torch.ones(1, 2))


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def replace_tensor(path, name, value):
    save_file(load_file(path) | {name: value}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: change_json(f / CONFIG, format="other"), "not of mmd-vlae"),
        (lambda f: change_json(f / CONFIG, format_version=2), "the version of mmd-vlae that wrote it"),
        (lambda f: change_json(f / CONFIG, model={"layers": ["8/3", "fc16"], "latents": [3, 2]}), "config.json"),
        (lambda f: change_json(f / CONFIG, model={"layers": ["8/2", "fc99999999"], "latents": [3, 2]}), "does not fit"),
        (lambda f: change_json(f / CONFIG, faces=20), "faces.png"),
        (lambda f: (f / CONFIG).write_text("{"), "not valid JSON"),
        (lambda f: (f / CONFIG).write_text("[" * 100_000), "not valid JSON"),
        (lambda f: (f / FINDINGS).write_text(" " * (5 << 20)), "more than"),
        (lambda f: (f / FINDINGS).unlink(), "findings.json is missing"),
        (lambda f: (f / FACES).unlink(), "faces.png is missing"),
        (lambda f: (f / WEIGHTS).unlink(), "is missing"),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 100), "not a whole safetensors file"),
        (lambda f: replace_tensor(f / LATENTS, "layer0.mean", torch.zeros(4)), "layer0.mean"),
        (lambda f: replace_tensor(f / LATENTS, "extra", torch.zeros(4)), "extra"),
        (lambda f: replace_tensor(f / LATENTS, "layer0.change", torch.zeros(2)), "one change for each direction"),
        (lambda f: replace_tensor(f / LATENTS, "layer0.mean", torch.full((3,), torch.nan)), "not finite"),
        (lambda f: replace_tensor(f / LATENTS, "layer0.mean", torch.zeros(3, dtype=torch.int64)), "layer0.mean"),
        (lambda f: (f / FACES).write_bytes(b"\x89PNG"), "faces.png"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder, damage, said):
    damage(folder)
    with pytest.raises(PretrainedError, match=said):
        read_folder(folder)


def test_a_place_without_a_model_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, said in (
        (tmp_path / "empty", "holds neither"),
        (folder / WEIGHTS, "name its folder"),
        ("photo64s", "there is no model photo64s"),
    ):
        with pytest.raises(PretrainedError, match=said):
            open_pretrained(source)


def test_a_model_of_the_hub_is_downloaded_file_by_file(folder, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(shutil.copytree(folder, tmp_path / "cache"))

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert open_pretrained("someone/tiny").config.name == "tiny"
    assert asked["name"] == "someone/tiny" and set(asked["allow_patterns"]) >= {CONFIG, WEIGHTS, LATENTS}

    def fails(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(PretrainedError, match="no route to host"):
        open_pretrained("someone/tiny")
