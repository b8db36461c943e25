"""The MMD against a double loop, and its gradient when the batch is spread over ranks against autograd on the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import KernelConfig
from pipeline.losses import mmd
from pipeline.losses.kernels import make_kernel
from pipeline.losses.mmd import local_mmd, squared_distances, unbiased_mmd

KERNELS = ("gaussian", "rbf", "imq")


def kernel_value(name: str, squared: float, d: int) -> float:
    """Written from the papers' formulas, apart from our code."""
    scales = KernelConfig().scales
    if name == "gaussian":
        return float(np.exp(-squared / d**2))
    widths = [s * 2 * d for s in scales]
    terms = [np.exp(-squared / w) if name == "rbf" else w / (w + squared) for w in widths]
    return float(np.mean(terms))


def double_loop(q: np.ndarray, p: np.ndarray, name: str, unbiased: bool) -> float:
    n, d = q.shape

    def mean(a, b, skip_diagonal):
        values = [
            kernel_value(name, float(((a[i] - b[j]) ** 2).sum()), d)
            for i in range(n)
            for j in range(n)
            if not (skip_diagonal and i == j)
        ]
        return sum(values) / len(values)

    return mean(q, q, unbiased) + mean(p, p, unbiased) - 2 * mean(q, p, False)


@pytest.mark.parametrize("name", KERNELS)
def test_both_estimators_equal_a_double_loop(name):
    rng = np.random.default_rng(0)
    q, p = rng.normal(0.5, 2, (9, 3)), rng.normal(size=(9, 3))
    kernel = make_kernel(KernelConfig(name=name), 3)
    tq, tp = torch.tensor(q, dtype=torch.float32), torch.tensor(p, dtype=torch.float32)
    share = local_mmd(tq, tq, tp, 0, kernel)
    assert float(share.biased) == pytest.approx(double_loop(q, p, name, False), abs=1e-6)
    assert float(share.unbiased) == pytest.approx(double_loop(q, p, name, True), abs=1e-6)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_of_ranks_sum_to_value_and_gradient_of_the_global_batch(name, world_size):
    torch.manual_seed(1)
    n, d = 12, 4
    q, p = torch.randn(n, d, requires_grad=True), torch.randn(n, d)
    kernel = make_kernel(KernelConfig(name=name), d)

    def mean(a, b):  # plain autograd on the whole matrix
        return kernel_by_autograd(name, torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2, d).mean()

    whole = mean(q, q) + mean(p, p) - 2 * mean(q, p)
    (expected,) = torch.autograd.grad(whole, q)
    rows = n // world_size
    total = sum(
        local_mmd(q[r * rows : (r + 1) * rows], q.detach(), p, r * rows, kernel).biased for r in range(world_size)
    )
    (found,) = torch.autograd.grad(total, q)
    assert float(total) == pytest.approx(float(whole), abs=1e-6)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def kernel_by_autograd(name: str, squared: torch.Tensor, d: int) -> torch.Tensor:
    if name == "gaussian":
        return torch.exp(-squared / d**2)
    widths = [s * 2 * d for s in KernelConfig().scales]
    return sum(torch.exp(-squared / w) if name == "rbf" else w / (w + squared) for w in widths) / len(widths)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_zero_for_equal_sets_symmetric_and_positive_for_far_ones(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator) + 5
    kernel = make_kernel(KernelConfig(), d)
    assert abs(float(local_mmd(a, a, a, 0, kernel).biased)) < 1e-6
    there, back = local_mmd(a, a, b, 0, kernel).biased, local_mmd(b, b, a, 0, kernel).biased
    assert float(there) == pytest.approx(float(back), abs=1e-6)
    assert float(there) > 0.1  # the loss is plus MMD: codes far from the prior cost


def test_unbiased_estimator_is_zero_on_average_and_biased_has_its_known_floor():
    d, n = 10, 100
    kernel = make_kernel(KernelConfig(name="gaussian"), d)
    shares = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        q, p = torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)
        shares.append([float(value) for value in local_mmd(q, q, p, 0, kernel)])
    biased, unbiased = np.mean(shares, axis=0)
    floor = 2 / n * (1 - (1 + 4 / d**2) ** (-d / 2))  # E k of the prior with itself in closed form
    assert abs(unbiased) < 3e-4
    assert biased == pytest.approx(floor, rel=0.1)


def test_chunks_do_not_change_the_result(monkeypatch):
    torch.manual_seed(2)
    q, p = torch.randn(50, 5, requires_grad=True), torch.randn(50, 5)
    kernel = make_kernel(KernelConfig(), 5)
    results = []
    for elements in (10**9, 350):
        monkeypatch.setattr(mmd, "CHUNK_ELEMENTS", elements)
        share = local_mmd(q, q.detach(), p, 0, kernel).unbiased
        results.append((float(share), torch.autograd.grad(share, q)[0]))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-8)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-8)


def test_distances_from_one_matrix_product_are_right_and_never_negative():
    x = torch.randn(30, 6) * 100
    squared = squared_distances(x, x)
    assert squared.min() >= 0
    assert torch.allclose(squared, ((x[:, None] - x[None]) ** 2).sum(-1), rtol=1e-4, atol=0.1)


def test_half_precision_codes_are_measured_in_float32():
    torch.manual_seed(3)
    q, p = torch.randn(64, 4), torch.randn(64, 4)
    kernel = make_kernel(KernelConfig(), 4)
    half = unbiased_mmd(q.bfloat16(), p.bfloat16(), kernel)
    rounded = unbiased_mmd(q.bfloat16().float(), p.bfloat16().float(), kernel)
    assert float(half) == float(rounded)


def test_the_kernel_is_computed_in_full_float32_where_the_network_may_take_tf32():
    seen = []

    def kernel(squared, with_slope):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return squared, torch.ones_like(squared) if with_slope else None

    z = torch.randn(8, 3, requires_grad=True)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        local_mmd(z, z, torch.randn(8, 3), 0, kernel).biased.backward()
        assert set(seen) == {"ieee"}
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
