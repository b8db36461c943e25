"""Charts: gray where no layer knows, no formulas in names, one unit for L1."""

import matplotlib
import numpy as np
import pytest

from analysis.figures import charts


def row(scores, best, significant):
    return {"auc": scores, "auc_all": 0.9, "best_layer": best, "best_layer_significant": significant}


def metrics():
    table = {
        "$x^2$_Hair": row([0.9, 0.6], 0, True),
        "Noise": row([0.5, 0.51], 1, False),
        "Smile": row([0.6, 0.8], 1, True),
    }
    return {"layers": [{}, {}], "attributes": table}


def test_names_are_sorted_by_best_layer_and_unknown_ones_come_last():
    names = charts.sorted_names(metrics()["attributes"], "auc", 2)
    assert names == ["$x^2$_Hair", "Smile", "Noise"]


def test_a_row_without_a_best_layer_is_gray():
    picture = np.asarray(charts.heat_map(metrics())).astype(int)
    gray = (np.abs(picture - 224) < 3).all(-1)
    assert 0.05 < gray.mean() < 0.5
    assert charts.heat_map({"layers": [{}]}) is None


def test_names_with_dollars_are_drawn_as_they_are_and_axes_keep_their_formulas():
    assert matplotlib.rcParams["text.parse_math"], "only the labels that hold names are exempt"
    one_sided = metrics()
    one_sided["attributes"]["$broken"] = row([0.7, 0.6], 0, True)
    assert charts.heat_map(one_sided) is not None


@pytest.mark.parametrize("reconstruction", ["l1", "l2"])
def test_training_curves_are_in_units_of_zero_to_one(monkeypatch, reconstruction):
    drawn = {}

    def keep(figure):
        drawn["errors"] = [line.get_ydata() for line in figure.axes[0].lines]
        charts.plt.close(figure)

    monkeypatch.setattr(charts, "as_picture", keep)
    lines = [
        {"step": step, "reconstruction": 0.16, "mmd": [0.1, None], "lr": 0.1, "samples": step} for step in (1, 2, 3)
    ]
    lines.append({"step": 3, "valid": {"l1": 0.3, "mse": 0.36, "effect": [0.5, 0.6]}})
    charts.training_curves(lines, reconstruction)
    train, valid = drawn["errors"]
    assert train[0] == pytest.approx(0.08 if reconstruction == "l1" else 0.2)
    assert valid[0] == pytest.approx(0.15 if reconstruction == "l1" else 0.3)
    assert charts.training_curves([]) is None


def test_checkpoints_of_different_depth_at_one_step_are_compared_beside_each_other():
    errors = {"train": {"l1": 0.1}, "valid": {"l1": None}}
    shallow = {"step": 1, "layers": [{"effect": 0.1}], "reconstruction": errors}
    deep = shallow | {"layers": [{"effect": 0.2}, {"effect": None}], "factors": {"x": {"r2_all": None}}}
    assert charts.comparison({"$broken": shallow, "b" * 100: deep}).width > 1000
