"""Commands of the analysis: pictures, probes, and errors that are one sentence."""

import json
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


def test_edit_and_interpolate_image_files(run, faces_tree, tmp_path):
    one, two = sorted((faces_tree / "img_align_celeba").glob("*.jpg"))[:2]
    model = run / "ckpt.pt"
    words = ("-a", "Blond_Hair", "-a", "Male", "--layer", 1, "--out", tmp_path / "edit.png")
    done = run_command("analysis", "edit", model, one, *words)
    assert done.returncode == 0, done.stderr
    width, height = Image.open(tmp_path / "edit.png").size
    assert width > 7 * 96 and 2 * 96 < height < 3 * 96, "a row for each attribute"
    done = run_command("analysis", "interpolate", model, one, two, "--out", tmp_path / "way.png")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "way.png").size[1] > 4 * 96, "all layers, then each of three"
    for command, pictures, code, message in (
        ("edit", [one, "-a", "Nose_Ring"], 2, "Nose_Ring"),
        ("edit", [one, "--layer", 7], 2, "layers 0 to 2"),
        ("interpolate", [one, tmp_path / "none.jpg"], None, "none.jpg"),
        ("interpolate", [one, run / "config.yaml"], None, "config.yaml"),
    ):
        failed = CliRunner().invoke(app, [str(word) for word in (command, model, *pictures)])
        assert failed.exit_code in ({code} if code else {1, 2}) and message in failed.stderr
        assert "Traceback" not in failed.stderr


def test_pictures_of_held_out_images_need_no_files(run, tmp_path):
    for command, *words in (("arithmetic",), ("interpolate",), ("edit", "-a", "Blond_Hair")):
        out = tmp_path / f"{command}.png"
        done = CliRunner().invoke(app, [str(word) for word in (command, run / "ckpt.pt", *words, "--out", out)])
        assert done.exit_code == 0, done.stderr
        assert min(Image.open(out).size) > 96


def test_probe_prints_a_table_and_writes_it(run, tmp_path):
    done = run_command("analysis", "probe", run / "ckpt.pt", "--out", tmp_path / "known.json")
    assert done.returncode == 0, done.stderr
    assert "Blond_Hair" in done.stdout and "skin_tone" in done.stdout and "layer 2" in done.stdout
    known = json.loads((tmp_path / "known.json").read_text())
    assert set(known) == {"attributes", "factors", "labels"} and len(known["factors"]["yaw"]["r2"]) == 3


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        ("truncate", 1, "truncated"),
        ("flip", 1, "damaged"),
        ("absent", 2, "there is no checkpoint"),
        ("data", 1, "does not exist"),
        ("out", 2, "is a file"),
    ],
)
def test_an_unusable_checkpoint_gives_one_sentence(run, tmp_path, damage, code, message):
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
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_without_a_train_split_there_is_no_report_and_probes_are_fitted_on_half(run, faces_tree, tmp_path):
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
    done = run_command("analysis", "probe", run / "ckpt.pt", "--data", shards, "--out", scores)
    assert done.returncode == 0, done.stderr
    row = json.loads(scores.read_text())["labels"]["label"]
    assert row["n"] == row["n_fit"] == 60


def test_help_is_quick_and_imports_nothing_heavy():
    code = "import sys, analysis.cli; print(sorted({'torch', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compressed_shards_are_analyzed_too_and_a_damaged_one_is_named(run, faces_tree, face_shards, tmp_path):
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
