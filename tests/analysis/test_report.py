"""The report through its public command: every file, every number, every error a sentence."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.cli import app
from analysis.inputs.encode import load_split
from preprocess.shards.reader import ShardSet
from tests.conftest import run_command


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    done = run_command("analysis", "report", run / "ckpt.pt", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_every_promised_file_is_there_and_is_a_picture(made):
    out, _ = made
    names = ["reconstructions", "samples", "arithmetic", "attributes", "edits", "training", "interpolations", "nearest"]
    layers = [f"{kind}_layer{layer}" for kind in ("manifold", "traversals") for layer in range(3)]
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
        assert len(row["r2"]) == len(row["r2_linear"]) == len(row["r2_mlp"]) == 3
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
    images = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', page)
    assert len(images) == len(list(out.glob("*.png"))) == 14
    for image in images:
        Image.open(io.BytesIO(base64.b64decode(image))).load()
    for link in re.findall(r'<a href="([^"#]+)"', page):
        assert (out / link).exists()
    assert str(out / "index.html") in stdout and "effect of each layer" in stdout


def test_the_page_in_a_browser(made, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    page = (made[0] / "index.html").read_text()
    check = """<script>addEventListener("load", () => {
      const broken = [...document.images].filter(i => !i.naturalWidth).length;
      const table = document.querySelectorAll("table.sortable")[1];
      table.querySelector("th:nth-child(2) button").click();
      const values = [...table.tBodies[0].rows].map(r => parseFloat(r.cells[1].textContent));
      const sorted = values.every((v, i) => !i || values[i - 1] >= v) && values.length > 3;
      document.body.innerHTML = `<p id=result>broken=${broken} sorted=${sorted}</p>`;
    });</script></body>"""
    (tmp_path / "index.html").write_text(page.replace("</body>", check))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [chromium, *flags, "--enable-logging=stderr", "--dump-dom", f"file://{tmp_path / 'index.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "broken=0 sorted=true" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_two_checkpoints_stand_side_by_side(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    done = run_command("analysis", "report", run / "ckpt.pt", other / "ckpt.pt", "--out", tmp_path / "r", "--quick")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    assert set(metrics) == {"run", "other"}
    assert metrics["run"]["layers"] == metrics["other"]["layers"]
    assert "Side by side" in (tmp_path / "r/index.html").read_text()
    assert (tmp_path / "r/other/samples.png").exists() and (tmp_path / "r/comparison.png").exists()


def test_manifold_and_arithmetic_alone(run, faces_tree, tmp_path):
    done = run_command("analysis", "manifold", run / "ckpt.pt", "--out", tmp_path, "--side", 4)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "manifold_layer2.png").size[0] >= 4 * 32
    done = run_command("analysis", "manifold", run / "ckpt.pt", "--out", tmp_path / "all.png", "--side", 4)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "all.png").size[0] >= 3 * 4 * 32
    faces = sorted((faces_tree / "img_align_celeba").glob("*.jpg"))[:3]
    words = ("--checkpoint", run / "ckpt.pt", "--out", tmp_path / "sum.png")
    done = run_command("analysis", "arithmetic", *faces, *words)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "sum.png").size[0] > 200


def test_edit_and_interpolate_image_files(run, faces_tree, tmp_path):
    one, two = sorted((faces_tree / "img_align_celeba").glob("*.jpg"))[:2]
    checkpoint = ("--checkpoint", run / "ckpt.pt")
    words = ("-a", "Blond_Hair", "-a", "Male", "--layer", 1, "--out", tmp_path / "edit.png")
    done = run_command("analysis", "edit", one, *words, *checkpoint)
    assert done.returncode == 0, done.stderr
    width, height = Image.open(tmp_path / "edit.png").size
    assert width > 7 * 96 and 2 * 96 < height < 3 * 96, "a row for each attribute"
    done = run_command("analysis", "interpolate", one, two, "--out", tmp_path / "way.png", *checkpoint)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "way.png").size[1] > 4 * 96, "all layers, then each of three"
    for words, code, message in (
        (("edit", one, "-a", "Nose_Ring"), 2, "no attribute Nose_Ring"),
        (("edit", one, "--layer", 7), 2, "layers 0 to 2"),
        (("interpolate", one, tmp_path / "none.jpg"), 1, "none.jpg"),
        (("interpolate", one, run / "config.yaml"), 1, "not a readable image"),
    ):
        failed = CliRunner().invoke(app, [str(word) for word in (*words, *checkpoint)])
        assert failed.exit_code == code and message in failed.stderr and "Traceback" not in failed.stderr


def test_pictures_of_held_out_images_need_no_files(run, tmp_path):
    for words in (("arithmetic",), ("interpolate",), ("edit", "-a", "Blond_Hair")):
        out = tmp_path / f"{words[0]}.png"
        done = CliRunner().invoke(app, [str(word) for word in (*words, "-c", run / "ckpt.pt", "--out", out)])
        assert done.exit_code == 0, done.stderr
        assert min(Image.open(out).size) > 96
    failed = CliRunner().invoke(app, ["interpolate", "one.jpg", "-c", str(run / "ckpt.pt")])
    assert failed.exit_code == 2 and "name 2, or none" in failed.stderr


def test_probe_prints_a_table_and_writes_it(run, tmp_path):
    done = run_command("analysis", "probe", run / "ckpt.pt", "--json", tmp_path / "known.json")
    assert done.returncode == 0, done.stderr
    assert "Blond_Hair" in done.stdout and "skin_tone" in done.stdout and "layer 2" in done.stdout
    known = json.loads((tmp_path / "known.json").read_text())
    assert set(known) == {"attributes", "factors", "labels"} and len(known["factors"]["yaw"]["r2"]) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncate", "truncated"),
        ("flip", "damaged"),
        ("absent", "cannot read"),
        ("data", "does not exist"),
        ("out", "File exists"),
    ],
)
def test_what_cannot_be_analysed_is_one_sentence(run, tmp_path, damage, message):
    path, words = tmp_path / "ckpt.pt", []
    whole = (run / "ckpt.pt").read_bytes()
    if damage == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    elif damage == "data":
        path.write_bytes(whole)
        words = ["--data", tmp_path / "nothing"]
    elif damage == "out":
        path.write_bytes(whole)
        words = ["--out", path]
    done = run_command("analysis", "report", path, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_without_a_train_split_there_is_no_report_and_readers_are_fitted_on_half(run, faces_tree, tmp_path):
    images = sorted((faces_tree / "img_align_celeba").iterdir())[:120]
    for number, image in enumerate(images):
        folder = tmp_path / "tree" / "valid" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    shards = tmp_path / "shards"
    words = ("--size", 32, "--crop", "148", "--workers", 1)
    assert run_command("preprocess", "images", tmp_path / "tree", "--out", shards, *words).returncode == 0
    done = run_command("analysis", "report", run / "ckpt.pt", "--data", shards)
    assert done.returncode == 1 and f"{shards} has no train split" in done.stderr and "Traceback" not in done.stderr
    scores = tmp_path / "scores.json"
    done = run_command("analysis", "probe", run / "ckpt.pt", "--data", shards, "--json", scores)
    assert done.returncode == 0, done.stderr
    row = json.loads(scores.read_text())["labels"]["label"]
    assert row["n"] == row["n_fit"] == 60


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, analysis.cli; print(sorted({'torch', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compressed_shards_are_analysed_too_and_a_damaged_one_is_named(run, faces_tree, face_shards, tmp_path):
    shards = tmp_path / "png"
    words = ("--codec", "png", "--size", 32, "--shard-size", 100, "--workers", 1)
    assert run_command("preprocess", "celeba", "--source", faces_tree, "--out", shards, *words).returncode == 0
    found = [load_split(ShardSet.open(folder), "valid", 30)[0] for folder in (shards, face_shards)]
    assert len(found[0]) == 30 and (found[0] == found[1]).all()
    assert run_command("analysis", "probe", run / "ckpt.pt", "--data", shards).returncode == 0
    damaged = shards / "valid-000000.tar"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = run_command("analysis", "probe", run / "ckpt.pt", "--data", shards)
    assert done.returncode == 1 and damaged.name in done.stderr and "Traceback" not in done.stderr
