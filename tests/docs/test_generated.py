"""The generated pages are what the code would generate now, and nothing is left out of them."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.config.load import fields
from tests.conftest import REPOSITORY
from tests.docs.pages import PAGES, links


def load(path: str) -> ModuleType:
    """A script of the repository as a module."""
    file = REPOSITORY / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_not_stale() -> None:
    generator = load("docs/generate_reference.py")
    assert generator.TARGET.read_text() == generator.render(), "run: python docs/generate_reference.py"


def test_the_reference_has_every_key_and_every_command() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text()
    for key, _ in fields():
        assert f"| `{key}` " in text
    for command in ("preprocess celeba", "accelerate launch pipeline/train.py", "analysis report"):
        assert f"### `{command}`" in text


def test_the_tables_of_the_scaling_page_are_not_stale() -> None:
    scaling = load("benchmarks/scaling.py")
    page = scaling.PAGE.read_text()
    assert scaling.render(page) == page, "run: python benchmarks/scaling.py"


def test_every_constant_says_what_it_is() -> None:
    for name, entry in load("benchmarks/scaling.py").read_constants().items():
        assert entry.keys() == {"value", "unit", "kind", "source"}, name
        assert isinstance(entry["value"], (int, float)), name
        assert entry["kind"] in {"measured", "counted", "data sheet", "assumed"}, name


def test_counted_constants_are_what_the_code_counts() -> None:
    scaling = load("benchmarks/scaling.py")
    constants = scaling.read_constants()
    for name, value in scaling.count_constants().items():
        assert constants[name]["value"] == pytest.approx(value, rel=1e-3), name


def test_more_of_anything_never_costs_less() -> None:
    scaling = load("benchmarks/scaling.py")
    c = {name: float(entry["value"]) for name, entry in scaling.read_constants().items()}
    steps = [scaling.step_on(gpus, c) for gpus in scaling.GPUS]
    assert all(
        a.seconds <= b.seconds and a.images_per_second < b.images_per_second for a, b in itertools.pairwise(steps)
    )
    assert scaling.step_on(64, c | {"inter_node_bandwidth": 1e9}).bottleneck == "network"
    assert scaling.step_on(1, c | {"host_seconds_per_step": 0.0}).bottleneck == "GPU: convolutions"
    assert scaling.step_on(512, c | {"mmd_pair_on_gpu": 1e-8}).bottleneck == "GPU: MMD"
    assert scaling.size_on(10**9, 512, c).bottleneck == "storage"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|benchmarks|launch|pipeline|preprocess|analysis)/[a-z_/.]+\.[a-z]+)`", page.read_text()
    )
    paths = [*(page.parent / target for target in links(page)), *(REPOSITORY / name for name in named)]
    assert [path for path in paths if not path.exists()] == []
