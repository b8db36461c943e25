"""The structure that CONTRIBUTING.md describes: rooms, direction of imports, sizes of files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("preprocess", "pipeline", "analysis")
"""Each may import those before it."""
MOST_LINES = 350
MOST_FILES = 10
"""Of a room, without __init__.py."""
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
ROOMS = sorted({path.parent for path in MODULES} - {REPOSITORY / package for package in PACKAGES})
WEIGHTS = REPOSITORY / "pipeline/model/weights"
"""Holds models, not code."""


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def imports(path: Path, everywhere: bool) -> set[str]:
    """Our modules that a module imports: anywhere in it, or only when it is imported itself."""
    found: set[str] = set()
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in NAMES} - {name_of(path)}


def _nodes(parent: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """The parts of a module: all, or only what runs when it is imported (no functions, no blocks for type checkers)."""
    for node in ast.iter_child_nodes(parent):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        later |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if everywhere or not later:
            yield node
            yield from _nodes(node, everywhere)


def test_no_import_runs_backwards() -> None:
    def backwards(module: str, path: Path) -> set[str]:
        allowed = PACKAGES[: PACKAGES.index(module.split(".", maxsplit=1)[0]) + 1]
        return {name for name in imports(path, everywhere=True) if name.split(".")[0] not in allowed}

    assert {name: wrong for name, path in NAMES.items() if (wrong := backwards(name, path))} == {}


def test_no_circle_of_imports() -> None:
    graph = {
        name: {n for n in imports(path, everywhere=False) if n not in _ancestors(name)} for name, path in NAMES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def _ancestors(name: str) -> set[str]:
    """The packages around a module: importing them first is Python's own order."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def test_files_are_short() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    paths = [REPOSITORY / name for name in tracked.stdout.splitlines()]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths if path.exists()}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_a_room_is_small_and_says_what_it_is_for() -> None:
    for room in ROOMS:
        assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= MOST_FILES, room
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))), room


def test_the_floor_plan_names_every_room() -> None:
    plan = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```text")[1].split("```")[0]
    package = ""
    named: set[str] = set()
    for line in plan.splitlines():
        word = line.split()[0] if line.split() else ""
        if line and not line.startswith(" "):
            package = word
        elif word.endswith("/"):
            named.add(f"{package}{word}".rstrip("/"))
    rooms = {str(room.relative_to(REPOSITORY)) for room in ROOMS if room != WEIGHTS}
    assert named == rooms


def test_no_file_of_pipeline_shadows_a_module() -> None:
    entries = list((REPOSITORY / "pipeline").iterdir())
    assert not {path.stem for path in entries} & sys.stdlib_module_names
    others = {"torch", "torchvision", "webdataset", "accelerate", "PIL", "numpy", "rich", "typer", "pydantic", "yaml"}
    files = {path.stem for path in entries if path.is_file()}
    assert not files & {*others, "datasets", "evaluate", "distributed"}
