"""The report of data that lacks annotations: sections without data are absent, and the page is whole."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.inputs.context import EvalContext, EvalContextError
from analysis.inputs.encode import encode_splits
from analysis.report import report
from analysis.report.layer_summary import headline
from pipeline.config.schema import Config
from preprocess.shards.reader import Annotations
from tests.analysis.painted import NAMES, painted

FACTORS = ("brightness", "unheard_of")


def quiet(text, total):
    """Progress that nobody reads."""
    return lambda count: None


def annotations(count, bright, kinds):
    """Annotations of the given kinds only."""
    rng = np.random.default_rng(count)
    factors = np.stack([bright[:, 0] + rng.normal(0, 0.1, count), rng.normal(size=count)], 1).astype(np.float32)
    nothing = np.full(count, -1)
    label = bright[:, 0].astype(np.int64) if "labels" in kinds else nothing
    return Annotations(
        [str(number) for number in range(count)],
        bright.astype(np.int8) if "attributes" in kinds else np.zeros((count, 0), np.int8),
        factors if "factors" in kinds else np.zeros((count, 0), np.float32),
        1000 * count + np.arange(count) // 3 if "identities" in kinds else nothing,  # nobody is in two splits
        np.zeros(count, np.int64) if "one label" in kinds else label,
    )


def context_of(folder, kinds, splits):
    """A context of painted images whose manifest names the annotations of these kinds."""
    context, _ = painted(4, 0)
    checkpoint = folder / "ckpt.pt"
    checkpoint.write_bytes(b"weights")
    manifest = SimpleNamespace(
        attribute_names=NAMES if "attributes" in kinds else (),
        factor_names=FACTORS if "factors" in kinds else (),
        label_names=(),
        image_shape=(16, 16, 3),
        source=SimpleNamespace(kind="images"),
        splits={name: SimpleNamespace(samples=count) for name, count in splits.items()},
    )
    shards = SimpleNamespace(
        manifest=manifest,
        digest="0" * 64,
        folder=folder,
        annotations=lambda split, limit: loaded(kinds)(shards, split, limit)[1],
    )
    state = {"progress": {"step": 7, "samples": 70}}
    return EvalContext(checkpoint, context.vlae, Config(), state, shards, torch.device("cpu"))


def loaded(kinds):
    """A replacement of ``load_split``: painted images with annotations of these kinds."""

    def load(shards, split, limit):
        count = min(limit, shards.manifest.splits[split].samples)
        _, encoded = painted(count, len(split))
        return encoded.images, annotations(count, encoded.annotations.attributes, kinds)

    return load


@pytest.mark.parametrize(
    ("kinds", "splits", "present", "absent"),
    [
        (
            (),
            {"train": 100, "valid": 60},
            {"memorization"},
            {"classifier", "arithmetic", "edits", "levels", "identity"},
        ),
        (("labels",), {"train": 100, "valid": 60}, {"classifier"}, {"levels", "identity"}),
        (("one label",), {"train": 100, "valid": 60}, {"memorization"}, {"levels", "identity"}),
        (("attributes",), {"train": 100, "valid": 60}, {"classifier", "arithmetic", "edits"}, {"levels", "identity"}),
        (("factors",), {"train": 100, "valid": 60}, {"classifier", "levels"}, {"identity"}),
        (("identities",), {"train": 100, "valid": 60}, {"identity"}, {"classifier", "levels"}),
        (("attributes", "factors"), {"train": 200}, {"classifier", "levels"}, {"memorization", "identity"}),
        (("attributes", "factors", "labels"), {"train": 16, "valid": 2, "test": 2}, {"memorization"}, {"classifier"}),
        (("attributes", "factors", "labels"), {"train": 20}, {"reconstruction"}, {"classifier", "memorization"}),
    ],
)
def test_report_of_data_that_lacks_annotations(monkeypatch, tmp_path, kinds, splits, present, absent):
    monkeypatch.setattr("analysis.inputs.encode.load_split", loaded(kinds))
    context = context_of(tmp_path, kinds, splits)
    found = report.evaluate_checkpoint(context, "run", 1000, quiet, {})
    page = report.write_report([found], tmp_path / "report")
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert present <= set(metrics) and not absent & set(metrics)
    assert metrics["held_out_is_train"] == ("valid" not in splits)
    assert ("no held-out images" in page.read_text()) == ("valid" not in splits)
    assert headline(found.metrics)
    measured = {key for key in ("attributes", "factors", "labels") if metrics.get(key)}
    assert measured <= set(kinds)
    text = page.read_text()
    assert ("edits.png" in text) == ("edits" in metrics)
    assert "Figure 1. One face" in text and text.rstrip().endswith("</html>")
    assert (tmp_path / "report/swaps.png").exists()
    if not measured:
        assert "cannot be named" in text and 'id="all-scores"' not in text
    for section, title in (("levels", "The levels of a face"), ("identity", "Who is shown")):
        assert (title in page.read_text()) == (section in metrics)
    if "factors" in kinds and "levels" in metrics:
        assert "unheard_of" in metrics["levels"]["left_out"]


def test_too_few_images_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("analysis.inputs.encode.load_split", loaded(()))
    with pytest.raises(EvalContextError, match="7 images: too few"):
        encode_splits(context_of(tmp_path, (), {"train": 7}), 100, quiet)
    with pytest.raises(EvalContextError, match="no train split"):
        encode_splits(context_of(tmp_path, (), {"valid": 70}), 100, quiet)


def test_every_split_is_loaded_once(monkeypatch, tmp_path):
    calls = []
    load = loaded(("attributes", "factors"))

    def counted(shards, split, limit):
        calls.append(split)
        return load(shards, split, limit)

    monkeypatch.setattr("analysis.inputs.encode.load_split", counted)
    context = context_of(tmp_path, ("attributes", "factors"), {"train": 100, "valid": 30, "test": 30})
    report.evaluate_checkpoint(context, "run", 1000, quiet, {})
    assert sorted(calls) == ["test", "train", "valid"]
