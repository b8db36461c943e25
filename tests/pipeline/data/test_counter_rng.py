"""Noise is a pure function of its address, and is normal."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.counter_rng import Stream, hash_key, normal, uniform


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 2**40), st.integers(1, 60), st.integers(0, 59))
def test_a_row_does_not_depend_on_the_other_rows(seed, first, count, chosen):
    rows = torch.arange(first, first + count)
    whole = normal(rows, 7, Stream.POSTERIOR, seed, 3)
    row = rows[chosen % count : chosen % count + 1]
    assert torch.equal(normal(row, 7, Stream.POSTERIOR, seed, 3), whole[chosen % count : chosen % count + 1])


def test_moments_and_independence():
    values = normal(torch.arange(20_000), 20, Stream.PRIOR, 5, 9).double()
    assert abs(values.mean()) < 0.006
    assert abs(values.var() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.08
    correlation = torch.corrcoef(values.T).fill_diagonal_(0).abs().max()
    assert correlation < 0.035
    lagged = torch.corrcoef(torch.stack([values[:-1].flatten(), values[1:].flatten()]))[0, 1]
    assert abs(lagged) < 0.008


def test_uniform_fills_the_open_interval_evenly():
    values = uniform(torch.arange(50_000), 4, Stream.FLIP, 1).flatten().numpy()
    assert values.min() > 0 and values.max() < 1
    counts, _ = np.histogram(values, bins=50, range=(0, 1))
    assert np.abs(counts / 4000 - 1).max() < 0.09


def test_streams_steps_and_seeds_share_no_numbers():
    rows = torch.arange(100)
    draws = [
        normal(rows, 5, stream, seed, step)
        for stream in (Stream.PRIOR, Stream.POSTERIOR)
        for seed in (0, 1)
        for step in (0, 1, 2)
    ]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.2


def test_rows_beyond_32_bits_differ():
    rows = torch.tensor([5, 5 + 2**32])
    a, b = normal(rows, 50, Stream.PRIOR, 0)
    assert not torch.equal(a, b)


def test_keys_have_64_bits():
    for parts in ((0,), (2**63, 5), (-1, 7)):
        assert 0 <= hash_key(*parts) < 2**64
