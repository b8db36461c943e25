"""Commands that need no shards: models and pictures by position, files of every kind, nothing overwritten."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis.cli import app
from analysis.model.ladder import LadderModel
from tests.conftest import run_command


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.effect_noise((178, 218), 40 + 20 * number).convert("RGB").save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(3)]


@pytest.mark.parametrize(
    ("words", "files", "out"),
    [
        (["manifold", "--side", "2"], 0, "manifold.png"),
        (["sample", "-n", "4"], 0, "samples.webp"),
        (["reconstruct"], 2, "again.jpg"),
        (["swap"], 2, "swap.png"),
        (["swap", "--layer", "1"], 0, "swap.png"),
        (["arithmetic"], 3, "sum.png"),
        (["arithmetic"], 0, "sum.png"),
        (["edit"], 1, "edit.png"),
        (["interpolate"], 2, "way.gif"),
        (["interpolate"], 0, "way.png"),
    ],
)
def test_an_export_draws_without_shards(export_folder, pictures, tmp_path, words, files, out):
    done = call(words[0], export_folder, *pictures[:files], *words[1:], "--out", tmp_path / out)
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / out) as picture:
        assert picture.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF"}[out.rsplit(".", 1)[1]]


def test_a_checkpoint_draws_pictures_without_its_shards(run, pictures, tmp_path):
    alone = shutil.copy(run / "ckpt.pt", tmp_path / "ckpt.pt")
    done = call("swap", alone, *pictures[:2], "--out", tmp_path / "swap.png")
    assert done.exit_code == 0, done.stderr


def test_nothing_is_overwritten_silently(export_folder, tmp_path):
    out = tmp_path / "samples.png"
    out.write_bytes(b"mine")
    refused = call("sample", export_folder, "--out", out)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr and out.read_bytes() == b"mine"
    assert call("sample", export_folder, "-n", 1, "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edit", "MODEL", "--out", "FOLDER"], "is a folder"),
        (["edit", "MODEL", "--out", "a.txt"], "must end with"),
        (["manifold", "MODEL", "--out", "man.txt"], "without a suffix"),
        (["interpolate", "MODEL", "--format", "gif", "--out", "a.png"], "must end with .gif"),
        (["interpolate", "MODEL", "--layer", "1"], "--layer needs --format gif or mp4"),
        (["arithmetic", "MODEL", "PICTURE"], "1 pictures were named: name 3"),
        (["reconstruct", "MODEL", "FOLDER"], "is a folder; name a picture in it"),
        (["reconstruct", "MODEL", "https://a.org/b.jpg"], "download it first"),
        (["sample", "EMPTY"], "holds neither the config.json of an export nor the ckpt.pt of a run"),
        (["swap", "MODEL", "none.png", "PICTURE"], "there is no file none.png"),
        (["sample", "none.pt"], "there is no checkpoint none.pt"),
        (["sample", "nothing"], "there is no model nothing"),
        (["manifold", "MODEL", "--layer", "9"], "layers 0 to 2"),
        (["edit", "MODEL", "-a", "smilng"], "did you mean Smiling?"),
        (["report", "MODEL"], "needs a ckpt.pt"),
        (["probe", "MODEL"], "--data"),
        (["encode", "MODEL", "EMPTY"], "holds no pictures"),
        (["export", "MODEL"], "is an export already"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(export_folder, pictures, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"MODEL": export_folder, "FOLDER": tmp_path, "PICTURE": pictures[0], "EMPTY": tmp_path / "empty"}
    done = call(*(places.get(word, word) for word in words))
    assert done.exit_code == 2 and said in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1


def test_arithmetic_takes_the_attribute_that_two_pictures_differ_in(export_folder, pictures, tmp_path):
    name = LadderModel.load(export_folder).attributes[0]
    plain, known = tmp_path / "plain.png", tmp_path / "known.png"
    three = [pictures[0], pictures[1], pictures[0]]
    assert call("arithmetic", export_folder, *three, "--out", plain).exit_code == 0
    done = call("arithmetic", export_folder, *three, "-a", name.upper(), "--out", known)
    assert done.exit_code == 0, done.stderr
    assert plain.read_bytes() != known.read_bytes()
    refused = call("arithmetic", export_folder, "-a", name, "--out", tmp_path / "none.png")
    assert refused.exit_code == 2 and "name A B C as well" in refused.stderr


def test_codes_of_a_folder_are_written_and_unreadable_pictures_named(export_folder, pictures, tmp_path):
    folder = tmp_path / "faces"
    (folder / "anna").mkdir(parents=True)
    shutil.copy(pictures[0], folder / "anna/0.png")
    shutil.copy(pictures[1], folder / "1.png")
    (folder / "broken.png").write_bytes(b"no picture")
    done = call("encode", export_folder, folder, "--out", tmp_path / "codes.npz")
    assert done.exit_code == 0, done.stderr
    assert "left out: 1" in done.stderr and "broken.png" in done.stderr
    codes = np.load(tmp_path / "codes.npz", allow_pickle=False)
    assert codes["id"].tolist() == ["1.png", "anna/0.png"] and codes["label"].tolist() == ["", "anna"]
    assert codes["layer0"].shape == (2, 3) and codes["layer2"].dtype == np.float32
    plain = tmp_path / "plain.npz"
    assert call("encode", export_folder, folder, "--refine", "0", "--out", plain).exit_code == 0
    with np.load(plain, allow_pickle=False) as others:
        assert not np.allclose(others["layer0"], codes["layer0"]), "refined codes are others"
    assert not list(tmp_path.glob(".*.parts"))


def test_codes_of_shards_resume_after_a_stop(export_folder, face_shards, tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    from analysis.export import codes as module

    monkeypatch.setattr(module, "PART", 16)
    whole, made = tmp_path / "a.parquet", []
    encode_part = module._encode_part

    def stops(*words):
        made.append(words)
        if len(made) == 3:
            raise KeyboardInterrupt
        encode_part(*words)

    monkeypatch.setattr(module, "_encode_part", stops)
    assert call("encode", export_folder, face_shards, "--split", "valid", "--out", whole).exit_code == 130
    made.clear()
    monkeypatch.setattr(module, "_encode_part", lambda *words: (made.append(words), encode_part(*words)))
    done = call("encode", export_folder, face_shards, "--split", "valid", "--out", whole)
    assert done.exit_code == 0, done.stderr
    table = pq.read_table(whole)
    valid = json.loads((face_shards / "manifest.json").read_text())["splits"]["valid"]["samples"]
    assert table.num_rows == valid and len(made) == -(-valid // 16) - 2, "two parts were there already"
    assert table.column_names == ["id", "label", "split", "layer0", "layer1", "layer2"]


def test_errors_come_before_torch_is_loaded():
    words = "import sys; from analysis.cli import app\ntry: app(['sample', 'none.pt'])\nexcept SystemExit: pass\n"
    done = run_command("python", "-c", words + "sys.exit('torch' in sys.modules)")
    assert done.returncode == 0 and "there is no checkpoint" in done.stderr
