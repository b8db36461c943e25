"""Stroke thickness and slant against drawn strokes of known width and lean, and through the commands on digits."""

import gzip
import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from analysis.cli import app
from analysis.probes.digit_morphology import digit_morphology, slant, thickness
from tests.conftest import run_command
from tests.pipeline.launching import launch


def stroke(width, lean=0.0, side=28):
    """A straight stroke of a width in pixels, leaning to the right by an angle in radians; drawn large, then shrunk."""
    factor = 16
    sheet = Image.new("L", (side * factor, side * factor))
    reach = 8 * factor
    middle, away = side * factor / 2, np.tan(lean) * reach
    across = width * factor / 2 / np.cos(lean)
    corners = [
        (middle + away - across, middle - reach),
        (middle + away + across, middle - reach),
        (middle - away + across, middle + reach),
        (middle - away - across, middle + reach),
    ]
    ImageDraw.Draw(sheet).polygon(corners, fill=255)
    return np.asarray(sheet.resize((side, side), Image.Resampling.BOX))


@pytest.mark.parametrize("width", [1.5, 2, 3, 4, 5])
@pytest.mark.parametrize("lean", [0.0, 0.3, 0.6])
def test_thickness_is_the_width_of_the_stroke_however_it_leans(width, lean):
    assert thickness(stroke(width, lean)) == pytest.approx(width, rel=0.2, abs=0.3)


def test_slant_is_the_lean_to_the_right():
    for lean in (-0.5, -0.2, 0.0, 0.2, 0.5):
        assert slant(stroke(2, lean)) == pytest.approx(lean, abs=0.04)
    assert slant(stroke(2, 0.3)) == pytest.approx(slant(stroke(4, 0.3)), abs=0.05), "thickness is no slant"


def test_nothing_drawn_is_nothing_measured():
    found = digit_morphology(np.zeros((2, 28, 28, 1), np.uint8))
    assert found.shape == (2, 2) and np.isnan(found).all()
    assert np.isfinite(digit_morphology(stroke(3)[None, :, :, None])).all()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Shards of strokes whose label is how they lean, and a ladder trained on them for a moment."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 200)):
        label = rng.integers(0, 3, count).astype(np.uint8)
        leans = (label - 1) * 0.5
        images = np.stack([stroke(w, lean) for w, lean in zip(rng.uniform(1.5, 5, count), leans, strict=True)])
        for name, magic, shape, values in (
            (f"{part}-images-idx3-ubyte.gz", 2051, (count, 28, 28), images),
            (f"{part}-labels-idx1-ubyte.gz", 2049, (count,), label),
        ):
            header = struct.pack(f">{1 + len(shape)}I", magic, *shape)
            (folder / name).write_bytes(gzip.compress(header + values.tobytes()))
    shards = folder / "shards"
    done = run_command("preprocess", "mnist", "--source", folder, "--out", shards, "--workers", 1)
    assert done.returncode == 0, done.stderr
    done = launch(shards, folder / "run", 'model.layers=["8/2", "8/2", "fc16"]', "model.latents=[2, 2, 2]", steps=30)
    assert done.returncode == 0, done.stderr
    return folder / "run/ckpt.pt"


def test_the_report_of_digits_knows_strokes_and_labels(digits, tmp_path):
    done = CliRunner().invoke(app, ["report", str(digits), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["factors"]) == {"stroke_thickness", "slant"} and set(metrics["labels"]) == {"label"}
    assert metrics["factors"]["slant"]["r2_all"] > 0.3 and len(metrics["labels"]["label"]["accuracy"]) == 3
    assert set(metrics["interventions"]["labels"]) <= {"label"}
    assert "stroke thickness" in (tmp_path / "index.html").read_text()


def test_the_probes_of_digits_are_printed(digits):
    done = CliRunner().invoke(app, ["probe", str(digits)])
    assert done.exit_code == 0, done.stderr
    assert "stroke_thickness" in done.stdout and "label" in done.stdout
