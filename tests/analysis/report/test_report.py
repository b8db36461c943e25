"""The report through its public command: every file, every number, and the page."""

import base64
import io
import json
import re
import shutil

import pytest
from PIL import Image

from analysis.figures.gallery import FACES, SLIDERS
from tests.analysis.report.browser import OVERFLOWS, ask
from tests.conftest import run_command


@pytest.fixture(scope="module")
def made(made_report):
    return made_report / "report", (made_report / "printed").read_text()


def test_every_promised_file_is_there_and_is_a_picture(made):
    out, _ = made
    names = ["swaps", "reconstructions", "samples", "arithmetic", "arithmetic_faces", "attributes", "edits", "training"]
    names += ["interpolations", "nearest"]
    layers = [f"{kind}_layer{layer}" for kind in ("manifold", "face_manifold", "traversals") for layer in range(3)]
    for name in [*names, *layers]:
        picture = Image.open(out / f"{name}.png")
        assert min(picture.size) > 50
        assert len(picture.convert("L").resize((40, 40)).getcolors() or []) > 5, f"{name} is blank"


def test_metrics_follow_the_contract(made, face_shards):
    metrics = json.loads((made[0] / "metrics.json").read_text())
    for split in ("train", "valid"):
        row = metrics["reconstruction"][split]
        assert 0 < row["l1"] < 0.6 and 3 < row["psnr"] < 40 and -1 < row["ssim"] < 1 and row["n"] > 20
    assert [layer["dim"] for layer in metrics["layers"]] == [3, 3, 3]
    assert all(layer["effect"] >= 0 and 0 <= layer["active_units"] <= 3 for layer in metrics["layers"])
    manifest = json.loads((face_shards / "manifest.json").read_text())
    assert set(metrics["attributes"]) <= set(manifest["attribute_names"])
    assert set(metrics["factors"]) == set(manifest["factor_names"])
    for row in metrics["factors"].values():
        assert len(row["r2"]) == len(row["r2_linear"]) == 3
        assert row["best_layer"] == row["r2"].index(max(row["r2"]))
        low, high = row["r2_all_interval"]
        assert low <= row["r2_all"] <= high or abs(low - row["r2_all"]) < 0.2
    for row in [*metrics["attributes"].values(), *metrics["factors"].values()]:
        assert row["n"] == metrics["held_out"] and row["n_fit"] == manifest["splits"]["train"]["samples"]
    pairs = metrics["arithmetic"]["pairs"]
    assert len(pairs) + len(metrics["arithmetic"]["not_classified"]) == 6
    for pair in pairs:
        for key in ("success", "chance", "unrelated_preserved"):
            low, high = pair[f"{key}_interval"]
            assert 0 <= low <= pair[key] <= high <= 1
        assert min(pair["classifier_auc"].values()) >= 0.75
    for key in ("success", "reconstruction_ceiling", "chance"):
        assert 0 <= metrics["arithmetic"][key] <= 1
    for row in metrics["interventions"]["factors"].values():
        assert len(row["change"]) == 3 and min(row["change"]) >= 0 and row["n"] > 50
    scores = metrics["disentanglement"]
    assert scores["factors"] == manifest["factor_names"]
    assert all(0 <= scores[key] <= 1 for key in ("mig", "sap"))
    assert all(0 <= value <= 1 for value in scores["dci"].values()) and len(scores["layers"]) == 3
    assert metrics["memorization"]["nearest_train_ratio_features"] > 0
    assert metrics["classifier"]["scores"]["attribute"]["Blond_Hair"]["auc"] > 0.8
    assert metrics["held_out"] == sum(manifest["splits"][s]["samples"] for s in ("valid", "test"))


def test_the_page_is_whole_without_its_neighbors(made):
    out, stdout = made
    page = (out / "index.html").read_text()
    assert not re.search(r'(src|href)="https?:', page)
    images = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    pictures = len(list(out.glob("*.png"))) - 1  # the heat map is a table on the page
    assert len(images) == pictures + FACES * (1 + 3 * SLIDERS)
    for image in images:
        Image.open(io.BytesIO(base64.b64decode(image))).load()
    for link in re.findall(r'<a href="([^"#]+)"', page):
        assert (out / link).exists()
    assert str(out / "index.html") in stdout and "effect of each layer" in stdout


@pytest.mark.parametrize("width", [1400, 390])
def test_no_element_of_a_real_report_is_wider_than_its_container(made, width, tmp_path):
    assert ask((made[0] / "index.html").read_text(), OVERFLOWS, width, tmp_path) == []


def test_two_checkpoints_stand_side_by_side(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    done = run_command(
        "analysis", "report", run / "ckpt.pt", other / "ckpt.pt", "--out", tmp_path / "r", "--samples", 40
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert set(metrics) == {"run", "other"}
    assert metrics["run"]["layers"] == metrics["other"]["layers"]
    assert "Side by side" in (tmp_path / "r/index.html").read_text()
    assert (tmp_path / "r/other/samples.png").exists() and (tmp_path / "r/comparison.png").exists()
