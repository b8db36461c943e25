"""Which errors are about a lost rank, and where ranks meet. The fault tests check both with real processes."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from pipeline.data.batch import LoaderError
from pipeline.distributed.heartbeat import is_lost_connection, launch_attempt
from pipeline.run.run_dir import RunFolderError


@pytest.mark.parametrize(
    "words",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:41873. This may",
        "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 100000ms for recv operation",
        "Application timeout caused pair closure",
        "Gloo connectFullMesh failed with ... Connection refused",
    ],
)
def test_messages_of_gloo_about_a_lost_rank_are_known(words: str) -> None:
    assert is_lost_connection(RuntimeError(words))
    assert is_lost_connection(dist.DistBackendError(words))


def test_other_errors_are_not_about_a_lost_rank() -> None:
    assert not is_lost_connection(RuntimeError("invalid tensor size at index 1"))
    assert not is_lost_connection(LoaderError("/data/timeout/train-000001.tar is damaged: its content has changed"))
    assert not is_lost_connection(RunFolderError("/runs/connection reset/ckpt.pt belongs to another recipe"))
    assert not is_lost_connection(ValueError("timed out"))
    assert is_lost_connection(dist.DistNetworkError("anything"))


@pytest.mark.parametrize(("nodes", "attempt"), [("1", "2"), ("2", "0")])
def test_ranks_of_several_nodes_do_not_use_a_count_that_differs_between_them(
    monkeypatch: pytest.MonkeyPatch, nodes: str, attempt: str
) -> None:
    """A node that was restarted once more than the other would wait for heartbeats under another name."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", nodes)
    assert launch_attempt() == attempt
