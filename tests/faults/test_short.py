"""The short case of every drill, on the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.faults.drill import Drill, NotOnThisMachine, Workspace, copy_of_the_code
from tests.faults.every import DRILLS


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_what_must_hold_does(drill: Drill, faces_tree: Path, face_shards: Path, tmp_path: Path) -> None:
    try:
        assert drill.run(Workspace(tmp_path, REPOSITORY, faces_tree, face_shards))
    except NotOnThisMachine as reason:
        pytest.skip(str(reason))


def test_every_removal_still_finds_its_protection(tmp_path: Path) -> None:
    assert all(drill.removals for drill in DRILLS)
    for drill in DRILLS:
        for number, removal in enumerate(drill.removals):
            removal.apply(copy_of_the_code(tmp_path / f"{drill.name} {number}"))
