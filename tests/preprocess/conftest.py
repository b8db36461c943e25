from __future__ import annotations

from pathlib import Path

import pytest

from tests.preprocess.trees import shard, write_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CelebA tree of 50 pictures (read-only for tests)."""
    return write_tree(tmp_path_factory.mktemp("celeba") / "tree")


@pytest.fixture(scope="session")
def shards(tree: Path) -> Path:
    """Its shards, 32x32, 20 a shard (read-only for tests)."""
    out = tree.parent / "shards"
    done = shard(tree, out)
    assert done.exit_code == 0, done.stderr
    return out
