"""What the report says of each layer in words."""

import pytest

from analysis.report.layer_summary import findings, headline, layer_labels, layer_sentences, shared_sentence


def row(scores, half=0.03, chance=0.5, score="auc"):
    best = scores.index(max(scores))
    intervals = [[value - half, value + half] for value in scores]
    return {
        score: scores,
        f"{score}_interval": intervals,
        f"{score}_all": max(scores),
        "chance": chance,
        "best_layer": best,
        "best_layer_significant": True,
    }


def metrics(attributes=None, factors=None, effects=(0.5, 0.6)):
    return {
        "layers": [{"effect": effect} for effect in effects],
        "attributes": attributes or {},
        "factors": factors or {},
    }


def test_a_layer_is_named_only_where_its_interval_lies_above_all_others():
    clear, close, weak = row([0.9, 0.7]), row([0.9, 0.86]), row([0.66, 0.5])
    measured = metrics({"Blond_Hair": clear, "Smiling": close, "Pale_Skin": weak})
    first, second = layer_sentences(measured)
    assert first.startswith("holds blond hair better than every other layer")
    assert "smiling" not in first and "pale skin" not in first
    assert second.startswith("holds nothing better than the other layers do")
    assert shared_sentence(measured) == "Shared between layers: smiling."
    assert layer_labels(measured) == ["layer 0:\nblond hair", "layer 1"]


def test_the_same_thing_as_attribute_and_factor_is_named_once():
    measured = metrics({"Male": row([0.6, 0.9])}, {"male": row([0.1, 0.5], chance=0.0, score="r2")})
    assert [round(finding.skill, 2) for finding in findings(measured)] == [0.8]
    assert layer_sentences(measured)[1].count("male") == 1


def test_a_layer_without_a_clear_lead_is_told_what_it_shares():
    first, _ = layer_sentences(metrics({"Smiling": row([0.9, 0.86])}))
    assert first.startswith("holds smiling, which other layers hold about as well")


def test_long_lists_are_cut_and_counted():
    measured = metrics({f"a{i}": row([0.9, 0.6]) for i in range(7)})
    assert "holds a0, a1, a2, a3 and 3 more better than every other layer" in layer_sentences(measured)[0]


def test_the_only_layer_of_a_ladder_is_compared_to_no_other():
    assert layer_sentences(metrics({"Smiling": row([0.9])}, effects=(1.0,))) == ["holds smiling."]
    assert "holds the whole picture" in layer_sentences(metrics(effects=(1.0,)))[0]


def test_an_unused_layer_and_data_without_annotations_are_said():
    assert "is unused" in layer_sentences(metrics(effects=(0.01, 0.9)))[0]
    assert "cannot be named: the images have no annotations" in layer_sentences(metrics())[1]
    assert shared_sentence(metrics()) is None


@pytest.mark.parametrize("l1", [0.05, None])
def test_the_headline_survives_what_could_not_be_measured(l1):
    errors = {"n": 9, "l1": l1, "psnr": l1, "ssim": l1}
    measured = metrics(effects=(None, 0.5)) | {"reconstruction": {"train": errors, "valid": errors}}
    lines = headline(measured)
    assert "9 held-out images" in lines[0] and any("could not be measured" in line for line in lines)
