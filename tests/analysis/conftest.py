"""One small trained run for all tests of the analyses, and what the public commands make of it."""

from pathlib import Path

import pytest

from tests.conftest import Shared, run_command, succeed
from tests.pipeline.launching import launch


@pytest.fixture(scope="session")
def run(shared: Shared, face_shards: Path) -> Path:
    words = ("training.validate_every_steps=20", "optimizer.learning_rate=0.002")

    def train(folder: Path) -> None:
        done = launch(face_shards, folder / "run", *words, steps=40, batch=32)
        assert done.returncode == 0, done.stderr

    return shared("trained", train) / "run"


@pytest.fixture(scope="session")
def export_folder(shared: Shared, run: Path) -> Path:
    """The run as `analysis export` writes it."""
    pytest.importorskip("safetensors")
    words = ("analysis", "export", run / "ckpt.pt", "--out")
    return shared("exported", lambda folder: succeed(*words, folder / "small")) / "small"


@pytest.fixture(scope="session")
def made_report(shared: Shared, run: Path) -> Path:
    """A folder with the report of the run, and what the command printed in ``printed``."""

    def report(folder: Path) -> None:
        done = run_command("analysis", "report", run / "ckpt.pt", "--out", folder / "report")
        assert done.returncode == 0, done.stderr
        (folder / "printed").write_text(done.stdout)

    return shared("report", report)
