"""The table of levels: which layer holds and changes which group of factors."""

import pytest

from analysis.metrics.levels import GROUPS, level_table, mean_scores
from preprocess.synthetic.factors import FACTOR_NAMES

FACTORS = (  # the header of the photographs' factors.csv
    "yaw,pitch,mouth_open,smile,eye_open,brow_raise,face_width,eye_distance,nose_width,lip_thickness,light_direction,"
    "brightness,skin_tone,skin_warmth,hair_lightness,hair_warmth,background,background_warmth,contrast,male,age"
)


def row(score, values):
    """A probe's row in which the MLP is the best probe."""
    return {score: values, f"{score}_linear": [-1.0] * len(values)}


def test_groups_are_means_of_the_best_probes_and_of_the_interventions():
    metrics = {
        "factors": {
            "brightness": row("r2", [0.8, 0.2]),
            "contrast": row("r2", [0.6, 0.0]),
            "yaw": row("r2", [0.1, 0.9]),
            "stroke_thickness": row("r2", [0.5, 0.5]),
        },
        "attributes": {"Smiling": row("auc", [0.5, 0.9]), "Wearing_Hat": row("auc", [0.5, 0.9])},
        "interventions": {"factors": {"brightness": {"change": [0.9, 0.3]}}, "attributes": {}},
    }
    table = level_table(metrics, 2)
    light, pose = table["groups"]
    assert light["name"] == "light and color" and light["members"] == ["brightness", "contrast"]
    assert light["r2"] == pytest.approx([0.7, 0.1]) and light["auc"] is None
    assert light["change"] == [0.9, 0.3] and (light["best_layer"], light["most_changed_by"]) == (0, 0)
    assert pose["members"] == ["yaw", "Smiling"] and pose["auc"] == [0.5, 0.9]
    assert pose["change"] is None and pose["most_changed_by"] is None and pose["best_layer"] == 1
    assert table["left_out"] == ["stroke_thickness", "Wearing_Hat"]


def test_no_known_factor_gives_no_table():
    assert level_table({"factors": {"slant": row("r2", [0.1])}, "attributes": {}}, 1) == {}
    assert level_table({}, 1) == {}


def test_every_factor_of_photographs_and_drawn_faces_is_in_one_group():
    photographs = set(FACTORS.split(","))
    listed = [name for names in GROUPS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert photographs | set(FACTOR_NAMES) <= set(listed)


def test_mean_scores_stand_beside_what_the_pictures_show():
    factors = {"yaw": row("r2", [0.1, 0.5]) | {"r2_all": 0.6, "r2_linear_all": 0.7}}
    factors |= {"age": row("r2", [-0.2, 0.1]) | {"r2_all": 0.1, "r2_linear_all": -0.3}}
    metrics = {
        "factors": factors | {"unscored": row("r2", [0.9, 0.9])},
        "attributes": {},
        "classifier": {"scores": {"factor": {"yaw": {"r2": 0.8}, "age": {"r2": -0.1}, "other": {"r2": 1.0}}}},
    }
    (means,) = mean_scores(metrics, 2).values()
    assert means["layers"] == pytest.approx([0.05, 0.3]) and means["all_layers"] == pytest.approx(0.4)
    assert means["pictures"] == pytest.approx(0.4) and means["n"] == 2, "R² below 0 counts as 0"
    assert mean_scores(metrics | {"classifier": {}}, 2) == {}
