"""A report of data that lack something: every optional part is absent, and the page is written."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.inputs.context import open_context
from analysis.metrics import summary
from analysis.report.report import evaluate_checkpoint, write_report
from preprocess.shards.reader import ShardSet


class Reduced(ShardSet):
    """Shards of which some annotations are hidden and some splits are gone."""

    def __init__(self, shards: ShardSet, kept: frozenset[str], splits: frozenset[str]) -> None:
        self.__dict__.update(shards.__dict__)
        self._whole, self._kept = shards, kept
        present = {name: split for name, split in shards.manifest.splits.items() if name in splits}
        hidden = {"attribute_names": (), "factor_names": ()}
        changes = {key: value for key, value in hidden.items() if key.removesuffix("_names") not in kept}
        self.__dict__["manifest"] = shards.manifest.model_copy(update={"splits": present, **changes})

    def annotations(self, split, limit=None):
        notes = self._whole.annotations(split, limit)
        count = len(notes.keys)
        label = np.arange(count) % 3 if "label" in self._kept else np.full(count, -1)
        return replace(
            notes,
            attributes=notes.attributes if "attribute" in self._kept else np.zeros((count, 0), np.int8),
            factors=notes.factors if "factor" in self._kept else np.zeros((count, 0), np.float32),
            identity=np.arange(count) // 2 if "identity" in self._kept else np.full(count, -1),
            label=np.zeros(count, int) if "one label" in self._kept else label,
        )


@pytest.mark.parametrize(
    ("kept", "splits", "limit"),
    [
        ((), ("train", "valid", "test"), 40),
        (("label",), ("train", "valid", "test"), 40),
        (("one label",), ("train", "valid", "test"), 40),
        (("attribute",), ("train", "valid", "test"), 40),
        (("factor",), ("train", "valid", "test"), 40),
        (("identity",), ("train", "valid", "test"), 40),
        (("attribute", "factor"), ("train", "test"), 40),
        (("attribute", "factor"), ("train", "valid", "test"), 20),
    ],
    ids=("nothing", "labels", "one-label", "attributes", "factors", "identities", "no-valid-split", "twenty-images"),
)
def test_a_report_is_written_whatever_the_data_lack(run, tmp_path, monkeypatch, kept, splits, limit):
    monkeypatch.setattr(summary, "LEAST_SHOWN", 128)
    monkeypatch.setattr(summary, "SHOWN_PER_HELD_OUT", 1)
    context, _ = open_context(run / "ckpt.pt", None)
    context = replace(context, shards=Reduced(context.shards, frozenset(kept), frozenset(splits)))
    report = evaluate_checkpoint(context, "run", limit, lambda *_: lambda _: None, {})
    page = write_report([report], tmp_path).read_text()
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "swaps.png").exists()
    assert report.metrics["held_out"] >= 20
    measured = {key for key in ("attributes", "factors", "labels") if report.metrics.get(key)}
    assert measured <= {f"{key}s" for key in kept}
    assert ("edits.png" in page) == ("attribute" in kept)
    assert "Figure 1. One face" in page and "</html>" in page
    if not measured:
        assert "cannot be named" in page and 'id="all-scores"' not in page
