"""Measures against hand-computed cases and independent implementations."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score

from analysis.arithmetic import combine
from analysis.bootstrap import interval, resamples
from analysis.image_quality import ssim
from analysis.probes import Target, probe
from analysis.scores import auc, r_squared


def test_auc_and_r_squared_equal_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300).astype(float)
    score = (truth * 0.7 + rng.normal(size=300)).round(1)  # rounding makes ties
    assert auc(truth, score)[0] == pytest.approx(roc_auc_score(truth, score))
    value = rng.normal(size=300)
    assert r_squared(value, score)[0] == pytest.approx(r2_score(value, score))


def test_probes_find_the_layer_that_knows_and_no_other():
    rng = np.random.default_rng(1)
    layers = [rng.normal(size=(800, 3)) for _ in range(3)]
    factor = probe(Target("factor", "f", layers[1][:, 0] * 2 + 1), layers)
    assert factor["best_layer"] == 1
    assert factor["r2"][1] > 0.95 and factor["r2_linear"][1] > 0.99
    assert abs(factor["r2_linear"][0]) < 0.1 and factor["r2_all"] > 0.9
    attribute = probe(Target("attribute", "a", (np.abs(layers[2][:, 1]) > 0.67).astype(float)), layers)
    assert attribute["best_layer"] == 2
    assert attribute["auc"][2] > 0.95
    assert attribute["auc_linear"][2] < 0.65, "information that a line cannot read"
    assert 0.4 < attribute["auc"][0] < 0.6
    label = probe(Target("label", "label", layers[0].argmax(1).astype(float)), layers)
    assert label["best_layer"] == 0 and label["accuracy"][0] > 0.8


def test_targets_that_hardly_vary_are_not_scored():
    layers = [np.random.default_rng(2).normal(size=(100, 2))]
    assert probe(Target("attribute", "a", np.ones(100)), layers) is None
    rare = np.zeros(100)
    rare[:3] = 1
    assert probe(Target("attribute", "a", rare), layers) is None
    assert probe(Target("factor", "f", np.full(100, np.nan)), layers) is None


def test_interval_holds_the_score_and_narrows_with_samples():
    rng = np.random.default_rng(3)
    widths = []
    for n in (100, 3000):
        truth = rng.integers(0, 2, n).astype(float)
        score = truth + rng.normal(size=n)
        low, high = interval(auc(truth, score, resamples(n)))
        assert low < auc(truth, score)[0] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_ssim_of_known_cases():
    torch.manual_seed(0)
    x = torch.rand(3, 3, 32, 32)
    assert torch.allclose(ssim(x, x), torch.ones(3), atol=1e-5)
    flat_a, flat_b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)  # no variance: the luminance term alone
    assert float(ssim(flat_a, flat_b)) == pytest.approx(expected, rel=1e-3)
    assert float(ssim(x, torch.rand(3, 3, 32, 32)).mean()) < 0.2


def test_arithmetic_is_a_minus_b_plus_c_on_every_layer():
    a, b, c = ([torch.randn(1, 2), torch.randn(1, 3)] for _ in range(3))
    for x, y, z, result in zip(a, b, c, combine(a, b, c), strict=True):
        assert torch.equal(result, x - y + z)
    assert all(torch.allclose(r, z) for r, z in zip(combine(a, a, c), c, strict=True))
