"""The classifier, and what it measures, on a ladder whose every answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.classifier import arithmetic_success
from analysis.classifier.arithmetic_success import arithmetic_success as measure_arithmetic
from analysis.classifier.classifier import score_classifier, train_attribute_classifier
from analysis.classifier.edit_success import edit_success
from analysis.classifier.interventions import layer_intervention_effects
from analysis.figures import latent_arithmetic as arithmetic
from analysis.probes.dataset import targets
from tests.analysis.painted import NAMES, painted


def quiet(text, total):
    """Progress that nobody reads."""
    return lambda count: None


def known(encoded):
    """What is known of the images."""
    return list(targets(encoded.annotations, NAMES, ()))


def train(context, encoded, shown):
    """A classifier without scores."""
    return train_attribute_classifier(encoded.images, known(encoded), context.device, shown, lambda _: None)


def scored(classifier, encoded):
    """The classifier with its scores on these images."""
    return replace(classifier, scores=score_classifier(classifier, encoded.images, known(encoded)))


@pytest.fixture(scope="module")
def classified():
    _, seen = painted(256, seed=1)
    context, held_out = painted(200, seed=2)
    return context, held_out, scored(train(context, seen, 3000), held_out)


def test_classifier_predicts_what_is_there_and_is_unreliable_about_noise(classified):
    _, held_out, classifier = classified
    assert classifier.is_reliable("attribute", "Left") and classifier.is_reliable("attribute", "Right")
    assert classifier.scores["attribute"]["Left"]["accuracy"] == 1
    assert classifier.scores["attribute"]["Left"]["n"] == len(held_out)
    coin = np.random.default_rng(0).integers(0, 2, (len(held_out), 2)).astype(np.int8)
    unrelated = replace(held_out.annotations, attributes=coin)
    fooled = scored(classifier, replace(held_out, annotations=unrelated))
    assert not fooled.is_reliable("attribute", "Left") and fooled.reliable_attributes() == []
    assert not classifier.is_reliable("factor", "absent")


def test_classifier_is_reproducible_and_leaves_the_global_generator_alone():
    context, seen = painted(128, seed=3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (train(context, seen, 256) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = zip(one.network.parameters(), two.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert train(context, seen.part(slice(10)), 256) is None


def test_attribute_of_few_images_is_not_scored(classified):
    _, held_out, classifier = classified
    rare = held_out.annotations.attributes.copy()
    rare[:, 0] = 0
    rare[np.flatnonzero(held_out.annotations.attributes[:, 0] == 1)[:3], 0] = 1
    few = scored(classifier, replace(held_out, annotations=replace(held_out.annotations, attributes=rare)))
    assert "Left" not in few.scores["attribute"] and not few.is_reliable("attribute", "Left")


def test_labels_are_classes_whatever_their_numbers():
    context, seen = painted(256, seed=4)
    label = np.where(seen.annotations.attributes[:, 0] == 1, 4_000_000_000_000, 3)
    labelled = replace(seen, annotations=replace(seen.annotations, label=label))
    classifier = train(context, labelled, 3000)
    assert classifier.outputs.classes.tolist() == [3, 4_000_000_000_000]
    assert scored(classifier, labelled).scores["label"]["label"]["accuracy"] == 1


def test_rare_images_make_wide_intervals(classified, monkeypatch):
    """Of five images that can be c, the classifier is wrong about one: each is in 48 triples."""
    monkeypatch.setattr(arithmetic_success, "PAIRS", (("Left", "Right"),))
    context, seen, classifier = classified
    notes = seen.annotations.attributes.copy()
    neither = np.flatnonzero((notes == 0).all(1))
    left = np.flatnonzero((notes[:, 0] == 1) & (notes[:, 1] == 0))
    notes[neither[4:]] = -1
    notes[left[0]] = 0  # dark on both sides, they say, and the classifier sees that it is not
    (pair,) = measure_arithmetic(
        context, replace(seen, annotations=replace(seen.annotations, attributes=notes)), seen, classifier, quiet
    )["pairs"]
    assert pair["n_images"][2] == 5
    low, high = pair["success_interval"]
    assert pair["success"] == pytest.approx(0.8, abs=0.01)
    assert low <= 0.6 and high == 1


def test_interventions_change_the_half_of_their_layer_only(classified):
    changes = layer_intervention_effects(*classified, quiet)["attributes"]
    assert changes["Left"]["change"] == pytest.approx([1, 0], abs=0.1)
    assert changes["Right"]["change"] == pytest.approx([0, 1], abs=0.1)
    assert changes["Left"]["best_layer"] == 0 and changes["Right"]["best_layer"] == 1
    low, high = changes["Left"]["change_interval"][0]
    assert low - 1e-6 <= changes["Left"]["change"][0] <= high + 1e-6


def test_arithmetic_succeeds_where_codes_add_up(classified, monkeypatch):
    monkeypatch.setattr(arithmetic_success, "PAIRS", (("Left", "Right"), ("Left", "Absent")))
    context, seen, classifier = classified
    result = measure_arithmetic(context, seen, seen, classifier, quiet)
    (pair,) = result["pairs"]
    assert pair["success"] == pair["success_plain"] == pair["reconstruction_ceiling"] == 1
    assert pair["success_direction"] == 1 and pair["layers"] == [1]
    assert pair["chance"] == 0
    assert pair["success_per_layer"] == [0, 1], "the right half is painted by layer 1"
    assert (result["success"], result["chance"]) == (1, 0)
    assert result["not_classified"] == [arithmetic.equation("Left", "Absent")]


def test_the_direction_is_of_training_images(classified, monkeypatch):
    monkeypatch.setattr(arithmetic_success, "PAIRS", (("Left", "Right"),))
    context, seen, classifier = classified
    swapped = replace(seen.annotations, attributes=seen.annotations.attributes[:, ::-1])
    (pair,) = measure_arithmetic(context, seen, replace(seen, annotations=swapped), classifier, quiet)["pairs"]
    assert pair["success_plain"] == 1 and pair["success_direction"] == 0


def test_edit_changes_its_attribute_by_its_own_layer(classified):
    edits = edit_success(*classified, quiet)
    assert edits["Left"]["target"] > 0.9 and edits["Left"]["others"] < 0.1
    assert edits["Left"]["target_per_layer"] == pytest.approx([1, 0], abs=0.1)
    assert edits["Right"]["target_per_layer"] == pytest.approx([0, 1], abs=0.1)
