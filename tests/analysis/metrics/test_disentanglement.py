"""Disentanglement scores against hand-computed cases and their definitions written out."""

import numpy as np
import pytest

from analysis.metrics.disentanglement import (
    binned,
    dci,
    disentanglement,
    disentanglement_and_completeness,
    mutual_information,
    squared_correlation,
    top_gap,
)


def test_dci_of_importances_that_can_be_computed_by_hand():
    assert disentanglement_and_completeness(np.eye(3)) == pytest.approx((1, 1))
    assert disentanglement_and_completeness(np.ones((4, 3))) == pytest.approx((0, 0), abs=1e-12)
    # two dimensions for one factor, one for the other: every dimension is pure, the first factor is spread
    d, c = disentanglement_and_completeness(np.array([[1.0, 0], [1, 0], [0, 1]]))
    assert d == pytest.approx(1)
    assert c == pytest.approx((1 - np.log(2) / np.log(3) + 1) / 2)
    # a dimension of no importance has no say; the other holds 3/4 of one factor and 1/4 of the other
    d, _ = disentanglement_and_completeness(np.array([[0.75, 0.25], [0, 0]]))
    assert d == pytest.approx(1 + (0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2))


def _by_definition(z, v):
    """I(z; v) / H(v) from the joint histogram, term by term."""
    total, entropy = 0.0, 0.0
    for b in np.unique(v):
        p_v = np.mean(v == b)
        entropy -= p_v * np.log(p_v)
        for a in np.unique(z):
            p = np.mean((z == a) & (v == b))
            if p:
                total += p * np.log(p / (np.mean(z == a) * p_v))
    return total / entropy


def test_mutual_information_is_its_definition_and_weights_are_repeats():
    rng = np.random.default_rng(0)
    z, v = rng.integers(0, 4, (200, 3)), rng.integers(0, 3, (200, 2))
    z[:, 1] = v[:, 0]  # knows a factor fully
    found = mutual_information(z, v)
    assert found == pytest.approx(np.array([[_by_definition(a, b) for b in v.T] for a in z.T]), abs=1e-6)
    assert found[1, 0] == pytest.approx(1, abs=1e-6)
    times = rng.integers(0, 4, 200)
    repeated = mutual_information(np.repeat(z, times, axis=0), np.repeat(v, times, axis=0))
    assert mutual_information(z, v, times.astype(np.float32)) == pytest.approx(repeated, abs=1e-6)


def test_squared_correlation_is_numpys_and_weights_are_repeats():
    rng = np.random.default_rng(1)
    z, v = rng.normal(size=(100, 3)), rng.normal(size=(100, 2))
    v[:, 1] += z[:, 2]
    expected = np.corrcoef(z.T, v.T)[:3, 3:] ** 2
    assert squared_correlation(z, v) == pytest.approx(expected)
    times = rng.integers(0, 4, 100)
    repeated = squared_correlation(np.repeat(z, times, axis=0), np.repeat(v, times, axis=0))
    assert squared_correlation(z, v, times) == pytest.approx(repeated)
    assert squared_correlation(np.ones((100, 1)), v) == pytest.approx(np.zeros((1, 2)))


def test_the_gap_is_best_minus_second_best():
    assert top_gap(np.array([[0.9, 0.1], [0.2, 0.5], [0.3, 0.5]])) == pytest.approx((0.6 + 0.0) / 2)
    assert top_gap(np.array([[0.4, 0.2]])) == pytest.approx(0.3)


def test_bins_are_of_equal_width_and_few_values_stay():
    values = np.stack([np.linspace(0, 1, 101), np.tile([0.0, 1.0], 51)[:101]], axis=1)
    codes = binned(values, bins=4)
    assert [codes[np.searchsorted(values[:, 0], x), 0] for x in (0.1, 0.3, 0.6, 0.9)] == [0, 1, 2, 3]
    assert set(codes[:, 1]) == {0, 1}


def test_a_factor_a_number_scores_high_and_a_rotation_low():
    rng = np.random.default_rng(2)
    factors = rng.uniform(size=(1500, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    pure = disentanglement([factors[:, :2], factors[:, 2:]], factors)
    mixed = disentanglement([((factors - 0.5) @ rotation)[:, :2], ((factors - 0.5) @ rotation)[:, 2:]], factors)
    assert pure["mig"] > 0.8 and pure["sap"] > 0.9
    assert min(pure["dci"].values()) > 0.9
    assert mixed["mig"] < 0.4 and mixed["dci"]["disentanglement"] < 0.7
    low, high = pure["mig_interval"]
    assert low < pure["mig"] + 0.02 and high - low < 0.05
    assert pure["n"] == 1500 and len(pure["layers"]) == 2


def test_factors_that_are_unknown_or_constant_are_left_out():
    rng = np.random.default_rng(3)
    factors = rng.uniform(size=(300, 3)).astype(np.float32)
    factors[:200, 0], factors[:, 1], factors[7, 2] = np.nan, 0.5, np.nan
    codes = rng.normal(size=(300, 2))
    found = disentanglement([codes], factors)
    assert (found["factors"], found["n"]) == ([2], 299), "an image of which a factor is unknown costs that image only"
    assert disentanglement([codes], factors[:, :2]) == {}
    assert disentanglement([codes], np.zeros((300, 0), np.float32)) == {}


def test_a_person_in_both_halves_is_not_a_known_factor():
    rng = np.random.default_rng(4)
    person = np.repeat(np.arange(60), 16)
    codes = rng.normal(size=(60, 3))[person] + rng.normal(size=(960, 3)) * 0.01
    personal = rng.uniform(size=(60, 1))[person]
    apart, mixed = dci(codes, personal, person)[0], dci(codes, personal)[0]
    assert mixed["informativeness"] > 0.5, "the images of a person lie side by side"
    assert apart["informativeness"] < 0.1
