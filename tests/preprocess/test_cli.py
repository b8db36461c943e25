"""The command starts fast, and its options are the same for every source."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.preprocess.trees import invoke

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "pyarrow", "fsspec", "distributed")


@pytest.mark.parametrize(
    ("words", "code", "more"),
    [
        (["--help"], 0, ("numpy", "PIL", "rich.progress")),
        (["celeba", "--help"], 0, ("numpy", "PIL", "rich.progress")),
        (["celeba", "--source", "/nowhere"], 2, ("numpy", "PIL", "rich")),
        (["mnist", "--source", "/nowhere"], 2, ("numpy", "PIL", "rich")),
        (["verify", "/nowhere"], 2, ()),
    ],
)
def test_help_and_a_missing_source_load_nothing_heavy(words: list[str], code: int, more: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from preprocess.cli import app\n"
        "try:\n"
        "    app()\n"
        "except SystemExit as end:\n"
        f"    loaded = [name for name in {HEAVY + more!r} if name in sys.modules]\n"
        "    sys.exit(f'{end.code}; loaded: {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1] == f"{code}; loaded: []", done.stderr


def test_every_source_has_the_same_shard_options() -> None:
    shared = ("--out", "--size", "--resample", "--codec", "--shard-size", "--workers", "--limit", "--seed")
    shared += ("--max-bad", "--overwrite", "--scheduler", "--quiet")
    for name in ("celeba", "images", "mnist"):
        text = invoke(name, "--help").stdout
        assert all(option in text for option in shared), name


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("--codec", "tiff"), "'npy', 'png', 'jpg', 'webp'"),
        (("--resample", "nearest"), "'bilinear', 'bicubic'"),
        (("--preset", "mine"), "'nvae'"),
        (("--kind", "rar"), "'auto', 'folder', 'archive'"),
    ],
)
def test_an_unknown_choice_lists_the_known_ones(words: tuple[str, str], choices: str) -> None:
    done = invoke("celeba", "--source", ".", *words)
    assert done.exit_code == 2
    assert choices in " ".join(done.stderr.replace("│", " ").split())
