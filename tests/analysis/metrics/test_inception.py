"""FID and KID by torchmetrics on given features; Inception's own weights cannot be had in a test."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

from analysis.metrics import inception as inception_quality
from analysis.metrics.inception import FEATURES, NoInception, as_seen, distances, refuse_strange_weights
from tests.conftest import run_command

pytest.importorskip("torchmetrics")


def test_pictures_are_seen_as_bytes_in_three_channels() -> None:
    gray = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    seen = as_seen(gray)
    assert seen.shape == (1, 3, 2, 2) and seen.dtype == torch.uint8
    assert seen[0, 2].flatten().tolist() == [0, 128, 255, 255]


def test_the_same_distribution_has_no_kernel_distance_and_another_has_one() -> None:
    rows = torch.randn(600, FEATURES, generator=torch.Generator().manual_seed(0))
    same = distances(rows[:300], rows[300:])
    other = distances(rows[:300] + 0.5, rows[300:])
    assert abs(same["kid_inception"]) < 0.05 < other["kid_inception"]
    assert same["n_inception"] == 300 and same["fid"] is None, "a covariance of 300 rows has no full rank"


def test_fid_is_the_shift_of_means_where_covariances_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_quality, "FEWEST_FOR_FID", 50)
    rows = torch.zeros(60, FEATURES)
    rows[:, :4] = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    shifted = rows.clone()
    shifted[:, 0] += 3
    assert distances(shifted, rows)["fid"] == pytest.approx(9, rel=0.02)


def _named_by_digest(folder: Path, content: bytes, digest: str = "") -> Path:
    path = folder / f"weights-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


def test_weights_that_are_not_what_they_should_be_are_not_unpickled(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "canary",))

    with pytest.raises(NoInception, match="more than weights"):
        refuse_strange_weights(_named_by_digest(tmp_path, pickle.dumps(Payload())))
    with pytest.raises(NoInception, match="not what its name says"):
        refuse_strange_weights(_named_by_digest(tmp_path, b"anything", "01234567"))
    assert not (tmp_path / "canary").exists()
    torch.save({"w": torch.ones(2)}, tmp_path / "made")
    refuse_strange_weights(_named_by_digest(tmp_path, (tmp_path / "made").read_bytes()))


def test_a_report_without_inception_says_why_and_is_made(run: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = {"TORCH_HOME": str(cache), "https_proxy": "http://127.0.0.1:9"}  # nobody listens there: no network
    words = ("analysis", "report", run / "ckpt.pt", "--samples", 40, "--fid", "--out", tmp_path / "report")
    done = run_command(*words, env=env)
    assert done.returncode == 0, done.stderr
    assert "warning: no FID: Inception's weights cannot be downloaded" in done.stderr
    assert "no FID" in (tmp_path / "report/index.html").read_text()
    assert "kid_classifier_features" in json.loads((tmp_path / "report/metrics.json").read_text())["sample_quality"]
    assert not list(cache.rglob("*.pth")), "half a download would be taken for whole"
