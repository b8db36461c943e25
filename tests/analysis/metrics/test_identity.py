"""Identity: people whom codes tell apart, and descriptors that codes predict."""

import numpy as np
import pytest

from analysis.inputs.context import EvalContextError
from analysis.metrics.identity import (
    descriptor_scores,
    equal_error_rate,
    read_identity_codes,
    verification,
    whitened,
)


def test_verification_finds_the_layer_of_identity():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 5)
    holds = rng.normal(size=(40, 4))[person] + 0.1 * rng.normal(size=(200, 4))
    result = verification([rng.normal(size=(200, 3)), holds], person, np.empty(0, int))["verification"]
    assert result["auc"][1] > 0.99 and result["equal_error_rate"][1] < 0.05
    assert abs(result["auc"][0] - 0.5) < 0.1 and abs(result["equal_error_rate"][0] - 0.5) < 0.1
    assert 0.7 < result["auc_all"] < result["auc"][1]
    assert result["auc_interval"][0][0] < result["auc"][0] < result["auc_interval"][0][1]
    assert (result["n_people"], result["n_images"], result["n_pairs"][0]) == (40, 200, 400)


def test_people_of_the_training_images_and_unknown_people_do_not_count():
    person = np.repeat(np.arange(20), 3)
    codes = [np.random.default_rng(1).normal(size=(60, 2))]
    assert verification(codes, person, np.arange(10))["verification"]["n_people"] == 10
    assert verification(codes, person, np.arange(15)) == {}, "five people are too few"
    assert verification(codes, np.full(60, -1), np.empty(0, int)) == {}
    assert verification(codes, np.arange(60), np.empty(0, int)) == {}, "nobody has two images"


def test_equal_error_rate_by_hand():
    same = np.array([True, True, True, False, False, False])
    assert equal_error_rate(same, np.array([1.0, 2, 3, 4, 5, 6]))[0] == 0
    assert equal_error_rate(same, np.array([1.0, 2, 5, 3, 4.5, 6]))[0] == pytest.approx(1 / 3)


def test_whitened_codes_have_unit_covariance_and_constant_dimensions_are_zero():
    rng = np.random.default_rng(2)
    codes = np.hstack([rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3)), np.ones((500, 1))])
    covariance = np.cov(whitened(codes).T, bias=True)
    assert np.sort(np.diag(covariance)) == pytest.approx([0, 1, 1, 1], abs=1e-6)
    assert covariance - np.diag(np.diag(covariance)) == pytest.approx(np.zeros((4, 4)), abs=1e-6)


def test_descriptors_are_matched_by_file_name_and_predicted_from_the_right_layer(tmp_path):
    rng = np.random.default_rng(3)
    people = rng.normal(size=(900, 4))
    names = [f"{number:06d}.jpg" for number in range(900)]
    shuffled = rng.permutation(900)
    np.savez(tmp_path / "codes.npz", name=np.array(names)[shuffled], code=(people @ rng.normal(size=(4, 20)))[shuffled])
    codes = read_identity_codes(tmp_path / "codes.npz")
    layers = [rng.normal(size=(900, 3)), people]
    keys = [f"{number:06d}" for number in range(900)]
    halves = [([z[half] for z in layers], keys[half]) for half in (slice(0, 600), slice(600, 900))]
    result = descriptor_scores(*halves, codes)["descriptors"]
    assert result["r2_linear"][1] > 0.9 and result["r2_linear"][0] < 0.1
    assert (result["n_fit"], result["n"]) == (600, 300)
    unknown = ([z[:300] for z in layers], [f"other{number}" for number in range(300)])
    assert descriptor_scores(halves[0], unknown, codes) == {}


@pytest.mark.parametrize("damage", ["absent", "text", "arrays", "shape", "pickle"])
def test_descriptors_that_cannot_be_read_are_one_sentence(tmp_path, damage):
    path = tmp_path / "codes.npz"
    if damage == "text":
        path.write_text("not an archive")
    elif damage == "arrays":
        np.savez(path, names=np.array(["a"]))
    elif damage == "shape":
        np.savez(path, name=np.array(["a", "b"]), code=np.zeros((3, 128)))
    elif damage == "pickle":
        np.savez(path, name=np.array(["a"], dtype=object), code=np.zeros((1, 128)))
    with pytest.raises(EvalContextError, match=r"codes\.npz"):
        read_identity_codes(path)
