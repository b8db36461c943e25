"""The short case of every fault test, on the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fault import Fault, NotSupportedHere, Workspace
from tests.faults.registry import FAULTS


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_short_case(fault: Fault, faces_tree: Path, face_shards: Path, tmp_path: Path) -> None:
    try:
        assert fault.run(Workspace(tmp_path, faces_tree, face_shards))
    except NotSupportedHere as reason:
        pytest.skip(str(reason))


def test_every_mutation_names_something_that_exists() -> None:
    assert all(fault.mutations for fault in FAULTS)
    for fault in FAULTS:
        for mutation in fault.mutations:
            mutation.check()


def test_a_mutation_reaches_a_process(faces_tree: Path, face_shards: Path, tmp_path: Path) -> None:
    from tests.faults.fault import Mutation

    limit = Mutation("a limit", "preprocess.images.decode:MAX_PIXELS", "is_set_to", "original + 1")
    workspace = Workspace(tmp_path, faces_tree, face_shards, mutation=limit)
    code = "from preprocess.images.decode import MAX_PIXELS; print(MAX_PIXELS)"
    plain = Workspace(tmp_path, faces_tree, face_shards).run("python", "-c", code)
    assert int(workspace.run("python", "-c", code).stdout) == int(plain.stdout) + 1
