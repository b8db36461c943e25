"""Measures against hand-computed cases and independent implementations."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, roc_auc_score

from analysis.commands.arguments import short_names
from analysis.figures.grids import interpolated
from analysis.metrics.bootstrap import resamples
from analysis.metrics.layer_usage import moments
from analysis.metrics.memorization import distance_ratio, generalization_gap, kid
from analysis.metrics.reconstruction import ssim
from analysis.model.arithmetic import combine
from analysis.probes.dataset import Sample, Target, classes_of, random_halves
from analysis.probes.probe import probe_all
from analysis.probes.scores import accuracy, auc, mean, r_squared


def test_auc_and_r_squared_equal_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300).astype(float)
    score = (truth * 0.7 + rng.normal(size=300)).round(1)  # rounding makes ties
    assert auc(truth, score).value == pytest.approx(roc_auc_score(truth, score))
    value = rng.normal(size=300)
    assert r_squared(value, score).value == pytest.approx(r2_score(value, score))


def quiet(text, total):
    """Progress that nobody reads."""
    return lambda count: None


def read(target: Target, layers: list[np.ndarray]):
    """The scores of one target, or None."""
    fitted, scored = Sample([target], layers).halves()
    return probe_all(fitted, scored, quiet)[f"{target.kind}s"].get(target.name)


def test_probes_find_the_informative_layer_only():
    rng = np.random.default_rng(1)
    layers = [rng.normal(size=(800, 3)) for _ in range(3)]
    factor = read(Target("factor", "f", layers[1][:, 0] * 2 + 1), layers)
    assert factor["best_layer"] == 1
    assert factor["r2"][1] > 0.95 and factor["r2_linear"][1] > 0.99
    assert abs(factor["r2_linear"][0]) < 0.1 and factor["r2_all"] > 0.9
    attribute = read(Target("attribute", "a", (np.abs(layers[2][:, 1]) > 0.67).astype(float)), layers)
    assert attribute["best_layer"] == 2
    assert attribute["auc"][2] > 0.95
    assert attribute["auc_linear"][2] < 0.65, "information that a line cannot read"
    assert 0.4 < attribute["auc"][0] < 0.6
    label = read(Target("label", "label", layers[0].argmax(1).astype(float)), layers)
    assert label["best_layer"] == 0 and label["accuracy"][0] > 0.8


def test_targets_that_hardly_vary_are_not_scored():
    layers = [np.random.default_rng(2).normal(size=(100, 2))]
    assert read(Target("attribute", "a", np.ones(100)), layers) is None
    rare = np.zeros(100)
    rare[:3] = 1
    assert read(Target("attribute", "a", rare), layers) is None
    assert read(Target("factor", "f", np.full(100, np.nan)), layers) is None


def test_probes_are_scored_on_images_that_they_were_not_fitted_on():
    rng = np.random.default_rng(4)
    fitted, scored = ([rng.normal(size=(400, 2))], [rng.normal(size=(300, 2))])
    names = {"fit": fitted[0][:, 0], "new": scored[0][:, 1]}  # the relation does not hold for the scored images
    known = Sample([Target("factor", "f", names["fit"])], fitted)
    result = probe_all(known, Sample([Target("factor", "f", names["new"])], scored), quiet)["factors"]["f"]
    assert result["n"] == 300 and result["n_fit"] == 400
    assert result["r2_linear"][0] < 0 and result["r2"][0] < 0
    other = Sample([Target("factor", "g", names["new"])], scored)
    assert probe_all(known, other, quiet)["factors"] == {}


def test_interval_holds_the_score_and_narrows_with_samples():
    rng = np.random.default_rng(3)
    widths = []
    for n in (100, 3000):
        truth = rng.integers(0, 2, n).astype(float)
        score = truth + rng.normal(size=n)
        found = auc(truth, score)
        low, high = found.interval()
        assert low < found.value < high
        drawn = [auc(truth[rows], score[rows]).value for rows in rng.integers(0, n, (200, n))]
        assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=(high - low) / 4), "a bootstrap"
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_copies_of_a_few_samples_make_no_interval_narrower():
    rng = np.random.default_rng(5)
    few = rng.normal(size=6)
    images = np.tile(np.arange(6), 40)
    assert mean(few[images]).interval(images) == pytest.approx(mean(few).interval()), "the same as without the copies"
    values = mean(rng.normal(size=240))
    assert values.interval(np.arange(240)) == pytest.approx(values.interval())


def test_no_person_is_in_both_halves():
    identity = np.random.default_rng(6).integers(-1, 30, 400)
    first, second = random_halves(400, identity)
    assert sorted([*first, *second]) == list(range(400))
    assert not set(identity[first][identity[first] >= 0]) & set(identity[second])
    assert {-1} <= set(identity[first]) and {-1} <= set(identity[second])
    assert abs(len(first) - len(second)) < 30
    assert [len(half) for half in random_halves(9)] == [4, 5]
    assert [len(half) for half in random_halves(8, np.zeros(8, int))] == [4, 4], "one person only"
    assert sorted(len(half) for half in random_halves(8, np.array([0] * 7 + [1]))) == [1, 7]


def test_large_numbers_are_classes_unless_there_are_too_many():
    assert classes_of(np.array([7, -1, 10**15, 7])).tolist() == [7, 10**15]
    assert len(classes_of(np.arange(5000))) == 0


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


def test_scores_without_variation():
    assert np.isnan(auc(np.ones(3), np.arange(3)).value)
    assert accuracy(np.arange(4), np.array([0, 1, 2, 0])).value == 0.75


def test_resamples_draw_as_many_as_there_are():
    weights = resamples(37)
    assert weights.shape[1] == 37 and (weights.sum(1) == 37).all() and (weights == weights.round()).all()
    assert not weights.flags.writeable


def test_moments_of_the_prior_are_zero_and_of_others_are_not():
    torch.manual_seed(1)
    prior = moments(torch.randn(20_000, 4))
    assert all(abs(value) < 0.1 for value in prior.values())
    other = moments(torch.cat([torch.rand(20_000, 1).exp() * 2 + 3, torch.randn(20_000, 1)], dim=1))
    assert other["mean"] > 1 and other["skewness"] > 0.2
    z = torch.randn(2000, 1)
    assert moments(torch.cat([z, 2 * z], dim=1))["correlation"] == pytest.approx(1, abs=1e-6)
    assert moments(torch.cat([z, 2 * z], dim=1))["std"] == pytest.approx(0.5, abs=0.1)


def test_distance_ratio_finds_copies_of_training_images():
    torch.manual_seed(2)
    train, real = torch.rand(300, 30), torch.rand(100, 30)
    assert distance_ratio(train[:100] + 1e-4, real, train)[0] < 0.01
    fresh, (low, high) = distance_ratio(torch.rand(100, 30), real, train)
    assert fresh == pytest.approx(1, abs=0.1) and low < fresh < high


def test_kid_tells_distributions_apart():
    torch.manual_seed(3)
    x, y = torch.randn(400, 8), torch.randn(400, 8)
    assert abs(kid(x, y)[0]) < 0.1
    distance, (low, high) = kid(x + 1, y)
    assert distance > 1 and low <= distance <= high
    _, (low, high) = kid(x[:60] + 1, y[:60])
    assert low < high, "one block would have no interval"


def test_the_gap_between_train_and_held_out_errors():
    gap, (low, high) = generalization_gap(np.full(50, 0.1), np.full(50, 0.12))
    assert gap == pytest.approx(0.2) and low == pytest.approx(0.2) and high == pytest.approx(0.2)


def test_interpolation_moves_the_named_layers_alone():
    a, b = ([torch.randn(1, 2), torch.randn(1, 3)] for _ in range(2))
    codes = interpolated(a, b, [1])
    assert torch.allclose(codes[0], a[0].expand_as(codes[0]))
    assert torch.allclose(codes[1][0], a[1][0]) and torch.allclose(codes[1][-1], b[1][0])
    assert torch.allclose(codes[1][len(codes[1]) // 2], (a[1] + b[1])[0] / 2)


def test_checkpoints_have_distinct_names_after_odd_characters_are_gone(tmp_path):
    def names(*folders: str) -> list[str]:
        return short_names([tmp_path / folder / "ckpt.pt" for folder in folders])

    assert names("a", "b=1") == ["a", "b_1"]
    for pair in (("β=1", "γ=1"), ("a b", "a_b"), ("x/a", "y/a")):
        assert len(set(names(*pair))) == 2
