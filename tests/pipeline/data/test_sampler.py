"""The global batches are the same on any number of ranks, and an epoch sees each sample once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.sampler import GlobalBatchSampler, epoch_order


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 300), st.integers(0, 1000), st.integers(0, 40))
def test_ranks_split_the_same_global_batch(world_size, rows, extra, seed, step):
    batch = world_size * rows
    samples = batch + extra
    alone = GlobalBatchSampler(samples, batch, seed, 0, 1).indices(step)
    together = [GlobalBatchSampler(samples, batch, seed, rank, world_size).indices(step) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(together), alone)


def test_each_epoch_has_each_sample_once_in_whole_batches():
    plan = GlobalBatchSampler(103, 10, 7, 0, 1)
    assert plan.batches_per_epoch == 10
    orders = []
    for epoch in range(3):
        seen = np.concatenate([plan.indices(epoch * 10 + k) for k in range(10)])
        assert len(set(seen.tolist())) == 100
        assert seen.min() >= 0 and seen.max() < 103
        orders.append(seen)
    assert not np.array_equal(orders[0], orders[1])


def test_the_order_is_frozen():
    """A resumed run must find the order that it left: these numbers may never change."""
    assert epoch_order(10, 0, 0).tolist() == [5, 8, 0, 6, 1, 4, 3, 9, 2, 7]


def test_impossible_batches_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="multiple of 3"):
        GlobalBatchSampler(100, 10, 0, 0, 3)
    with pytest.raises(ValueError, match="fewer than one global batch"):
        GlobalBatchSampler(5, 10, 0, 0, 1)
