"""The command that a finished build recommends."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from preprocess.cli import train_command
from preprocess.shards.manifest import Manifest, Split
from preprocess.synthetic.factors import FACTOR_NAMES
from tests.conftest import REPOSITORY
from tests.preprocess.trees import shard


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({}, "photos"),
        ({"factor_names": FACTOR_NAMES}, "demo"),
        ({"source": {"kind": "mnist", "fingerprint": "0" * 64, "images": 50}}, "mnist"),
    ],
)
def test_the_recipe_suits_the_images(changes: dict, recipe: str, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    manifest = Manifest.model_validate(Manifest.read(shards).model_dump() | changes)
    assert train_command(manifest, "out") == f"accelerate launch pipeline/train.py --recipe {recipe} --data out"


def test_all_of_celeba_is_trained_with_its_recipe(shards: Path) -> None:
    manifest = Manifest.read(shards)
    train = Split.model_construct(samples=162_770, shards=())
    large = manifest.model_copy(update={"splits": manifest.splits | {"train": train}})
    assert "--recipe celeba64 " in train_command(large, "out")


def test_installed_wheel_names_its_own_command(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_command(Manifest.read(shards), "out").startswith("mmd-vlae-train --recipe photos")


def test_a_build_ends_with_the_next_command_and_quotes_its_path(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "my shards"
    done = shard(tree, out, "--quiet")
    assert done.exit_code == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("next: ")
    assert shlex.split(last)[-2:] == ["--data", str(out)]
