"""Every command that a document or the head of a launch file shows is accepted; the tutorial's are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import REPOSITORY
from tests.docs.known_commands import problem_with
from tests.docs.pages import PAGES, SHELL, Command, block_commands, blocks, inline_commands, recipe_commands

SMALL = ["model.layers=[8/2, 16/2, fc32]", "model.latents=[3, 3, 3]", "model.contribution_grid=null"]
TRAINER = ["--steps", "4", "--global-batch-size", "16", "--mixed-precision", "no", *SMALL]
SMALLER: dict[str, list[str]] = {
    "preprocess images": ["--size", "32", "--workers", "1"],
    "preprocess show": [],
    "preprocess verify": [],
    "accelerate launch": TRAINER,
    "analysis report": ["--samples", "40"],
    "analysis manifold": ["--side", "3"],
    "analysis interpolate": [],
}
"""What is added to a command of the tutorial, so that it takes seconds."""

NOT_RUN = {
    "pip install": "is how the environment of this test was made",
    "accelerate launch --config_file launch/accelerate/gpu-1.yaml": "run by tests/launch/test_accelerate.py",
}

EVERY = sorted(
    {*recipe_commands(), *(c for page in PAGES for c in [*block_commands(page), *inline_commands(page)])},
    key=lambda command: (command.page, command.text),
)


def test_the_documents_show_commands() -> None:
    pages = {command.page for command in EVERY}
    assert {"README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/launch.md", "docs/reference.md"} <= pages
    assert {"launch/recipes/demo.yaml", "launch/slurm/train.sbatch", "launch/docker/Dockerfile"} <= pages


@pytest.mark.parametrize("command", EVERY, ids=lambda command: f"{command.page}: {command.text[:60]}")
def test_a_shown_command_is_accepted(command: Command) -> None:
    assert problem_with(command.words) is None


@pytest.mark.parametrize(
    "text",
    [
        "preprocess celeba --output shards",
        "preprocess celebs --out shards",
        "analysis reports",
        "accelerate launch --config_file launch/accelerate/cpu-3.yaml pipeline/train.py",
        "accelerate launch --restarts 3 pipeline/train.py",
        "accelerate launch pipeline/train.py --recipe launch/recipes/none.yaml",
        "accelerate launch pipeline/train.py optimizer.learning_rat=1e-3",
        "torchrun --nodes 4 pipeline/train.py",
        "torchrun pipeline/training/loop.py",
        "make demos",
        "sbatch launch/slurm/train.sbatch --dat shards",
        "sbatch launch/slurm/preprocess.sbatch celeba --sources x",
        "docker build --file Dockerfile .",
        "docker run mmd-vlae:0.1.0 preprocess celeb",
        "kubectl apply -f launch/kubernetes/job.yaml",
        "dask worker tcp://HEAD:8786 --threads 1",
        "python benchmarks/scaling.py --counts",
        "pip install -e .[gpu]",
        "curl example.org",
    ],
)
def test_a_wrong_command_is_not_accepted(text: str) -> None:
    assert problem_with(shlex.split(text)) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_are_shell(page: Path) -> None:
    for block in blocks(page, SHELL):
        assert subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode == 0, block
    indented = re.findall(r"^\n {4}(?:make|preprocess|pip|accelerate|analysis) .*", page.read_text(), re.MULTILINE)
    assert indented == [], "commands stand in fenced blocks, where the tests find them"


def test_commands_of_make_demo_are_accepted() -> None:
    # the flags of the make that runs the tests would have this one say where it is
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    shown = [line.replace(".venv/bin/", "") for line in lines if "python" not in line and "touch" not in line]
    words = [Command("Makefile", line).words for line in shown]
    assert [w[:2] for w in words] == [
        ["preprocess", "celeba"],
        ["accelerate", "launch"],
        ["analysis", "report"],
    ]
    assert [problem_with(w) for w in words] == [None] * 3


def test_the_tutorial_from_a_folder_of_photographs_to_a_report(faces_tree: Path, tmp_path: Path) -> None:
    """All its commands, in their order, in a folder that looks like the repository's root."""
    for folder in ("launch", "pipeline"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    pictures = sorted((faces_tree / "img_align_celeba").iterdir())[:200]
    (tmp_path / "photos").mkdir()
    for name, picture in zip(["first.jpg", "second.jpg"], pictures, strict=False):
        shutil.copy(picture, tmp_path / "photos" / name)
    for label, part in (("outside", pictures[2:100]), ("inside", pictures[100:])):
        shutil.copytree(faces_tree / "img_align_celeba", tmp_path / "photos" / label, ignore=_all_but(part))
    for command in block_commands(REPOSITORY / "docs/tutorial.md"):
        if any(command.text.startswith(text) for text in NOT_RUN):
            continue
        words = [*command.words, *SMALLER[" ".join(command.words[:2])]]
        if words[:2] == ["accelerate", "launch"]:
            words[2:2] = ["--main_process_port", "0"]
        done = processes.run(words, processes.environment(), 300, cwd=tmp_path)
        assert done.returncode == 0, f"{command.text}\n{done.stderr}"
    for made in ("contact-sheet.png", "runs/photos/ckpt.pt", "report/index.html", "manifold.png", "way.png"):
        assert (tmp_path / made).stat().st_size > 0, made


def _all_but(kept: list[Path]):
    names = {path.name for path in kept}
    return lambda folder, entries: [entry for entry in entries if entry not in names]


def test_the_python_of_the_formats_page(face_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards").symlink_to(face_shards)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(REPOSITORY / "docs/formats.md", {"python"})
    found: dict[str, object] = {}
    exec(code, found)
    assert found["sample"]["image.npy"].shape == (32, 32, 3)
