"""The short case of every fault test, on the code as it is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import REPOSITORY
from tests.faults.fault import Fault, Mutation, NotSupportedHere, Workspace
from tests.faults.registry import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_short_case(fault: Fault, faces_tree: Path, face_shards: Path, tmp_path: Path) -> None:
    try:
        assert fault.run(Workspace(tmp_path, faces_tree, face_shards))
    except NotSupportedHere as reason:
        pytest.skip(str(reason))


def test_the_modules_that_are_imported_before_a_fork_exist() -> None:
    assert [name for name in processes.IMPORTED if find_spec(name) is None] == []


def test_every_mutation_names_something_that_exists() -> None:
    assert all(fault.mutations for fault in FAULTS)
    for fault in FAULTS:
        for mutation in fault.mutations:
            mutation.check()


def test_the_page_describes_every_fault_test() -> None:
    page = (REPOSITORY / "docs/faults.md").read_text()
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.must_hold} |" in page, "run: python -m tests.faults --write"
        protections = "; ".join(mutation.protection for mutation in fault.mutations)
        assert f"| {fault.name} | {protections} |" in page, "run: python -m tests.faults --unprotected --write"


def test_a_mutation_reaches_a_process(faces_tree: Path, face_shards: Path, tmp_path: Path) -> None:
    limit = Mutation("a limit", "preprocess.images.decode:MAX_PIXELS", "is_set_to", "original + 1")
    workspace = Workspace(tmp_path, faces_tree, face_shards, mutation=limit)
    code = "from preprocess.images.decode import MAX_PIXELS; print(MAX_PIXELS)"
    plain = Workspace(tmp_path, faces_tree, face_shards).run("python", "-c", code)
    assert int(workspace.run("python", "-c", code).stdout) == int(plain.stdout) + 1
