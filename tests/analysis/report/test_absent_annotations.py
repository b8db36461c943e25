"""The report of data that lack annotations or are odd: sections without data are absent, and the page is whole."""

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
from pipeline.model.pixels import from_array, to_rgb
from pipeline.model.vlae import Posterior
from preprocess.shards.reader import Annotations
from tests.analysis.painted import NAMES, Painter, painted

FACTORS = ("brightness", "unheard_of")
ODD_NAMES = ("Constant", "Rare", '<script>alert("x")</script>', "$\\frac{a}{b}$_& 100 %", "笑顔_" + "é" * 180)


def quiet(text, total):
    """Progress that nobody reads."""
    return lambda count: None


class Stripes(torch.nn.Module):
    """Every layer is the brightness of one stripe of the picture; its code has one number."""

    def __init__(self, layers, shape):
        super().__init__()
        self.latent_sizes, self.shape = (1,) * layers, shape
        self.unused = torch.nn.Parameter(torch.zeros(1), requires_grad=False)  # tells the device of the model

    def encode(self, images):
        stripes = images.clamp(-0.999, 0.999).atanh().mean((1, 2)).chunk(len(self.latent_sizes), dim=1)
        return [Posterior(stripe.mean(1, keepdim=True), torch.full((len(images), 1), 1e-3)) for stripe in stripes]

    def decode(self, codes, fade=None):
        height, width, channels = self.shape
        wide = width // len(codes)
        return torch.cat([z.tanh().view(-1, 1, 1, 1).expand(-1, channels, height, wide) for z in codes], dim=3)


def striped(model, count, seed):
    """uint8 images (count, H, W, C) of stripes that are dark or bright, and which are bright, (count, layers)."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, (count, len(model.latent_sizes)))
    z = torch.from_numpy(bright * 2.0 - 1 + rng.normal(0, 0.05, bright.shape)).float()
    pixels = to_rgb(model.decode(list(z.split(1, dim=1))))
    return np.ascontiguousarray(pixels[..., : model.shape[2]]), bright


def annotations(count, bright, kinds):
    """Annotations of the given kinds only."""
    rng = np.random.default_rng(count)
    attributes = bright[:, :2].astype(np.int8) if "attributes" in kinds else np.zeros((count, 0), np.int8)
    if "odd" in kinds:
        attributes = np.stack([np.ones(count), np.arange(count) < 2, *[bright[:, 0]] * 3], 1).astype(np.int8)
    factors = np.stack([bright[:, 0] + rng.normal(0, 0.1, count), rng.normal(size=count)], 1).astype(np.float32)
    if "odd" in kinds:
        factors[::2, 0], factors[:, 1] = np.nan, np.nan
    nothing = np.full(count, -1)
    label = np.arange(count) % 200 if "200 labels" in kinds else bright[:, 0].astype(np.int64)
    return Annotations(
        [str(number) for number in range(count)],
        attributes,
        factors if {"factors", "odd"} & set(kinds) else np.zeros((count, 0), np.float32),
        1000 * count + np.arange(count) // 3 if "identities" in kinds else nothing,  # nobody is in two splits
        np.zeros(count, np.int64) if "one label" in kinds else label if "label" in "".join(kinds) else nothing,
    )


def context_of(folder, kinds, splits, model=None):
    """A context of painted images whose manifest names the annotations of these kinds."""
    checkpoint = folder / "ckpt.pt"
    checkpoint.write_bytes(b"weights")
    names = ODD_NAMES if "odd" in kinds else NAMES if "attributes" in kinds else ()
    manifest = SimpleNamespace(
        attribute_names=names,
        factor_names=FACTORS if {"factors", "odd"} & set(kinds) else (),
        label_names=(),
        image_shape=(16, 16, 3) if model is None else model.shape,
        source=SimpleNamespace(kind="images"),
        splits={name: SimpleNamespace(samples=count) for name, count in splits.items()},
    )
    shards = SimpleNamespace(
        manifest=manifest,
        digest="0" * 64,
        folder=folder,
        annotations=lambda split, limit: loaded(kinds, model)(shards, split, limit)[1],
    )
    state = {"progress": {"step": 7, "samples": 70}}
    return EvalContext(checkpoint, model or Painter(), Config(), state, shards, torch.device("cpu"))


def loaded(kinds, model=None):
    """A replacement of ``load_split``: painted images with annotations of these kinds."""

    def load(shards, split, limit):
        count = min(limit, shards.manifest.splits[split].samples)
        if model is not None:
            images, bright = striped(model, count, len(split))
            return images, annotations(count, bright, kinds)
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
    page = report.write_report([found], tmp_path / "report").read_text()
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert present <= set(metrics) and not absent & set(metrics)
    assert metrics["held_out_is_train"] == ("valid" not in splits)
    assert ("no held-out images" in page) == ("valid" not in splits)
    measured = {key for key in ("attributes", "factors", "labels") if metrics.get(key)}
    assert measured <= set(kinds) and headline(found.metrics)
    shows_edits = "attributes" in kinds and metrics["held_out"] > 4  # of four images, all may have an attribute
    assert ("edits.png" in page) == shows_edits and (tmp_path / "report/swaps.png").exists()
    assert "Figure 1. One face" in page and page.rstrip().endswith("</html>")
    for section, title in (("levels", "The levels of a face"), ("identity", "Who is shown")):
        assert (f"{title}</h2>" in page) == (section in metrics) == (f"“{title}” needs" not in page)
    if not measured:
        assert "cannot be named" in page and 'id="all-scores"' not in page
    if "factors" in kinds and "levels" in metrics:
        assert "unheard_of" in metrics["levels"]["left_out"]


@pytest.mark.parametrize(
    ("layers", "shape"), [(1, (12, 20, 1)), (10, (32, 20, 3))], ids=("one gray layer", "ten layers, upright")
)
def test_odd_names_values_shapes_and_ladders(monkeypatch, tmp_path, layers, shape):
    kinds, model = ("odd", "200 labels"), Stripes(layers, shape)
    monkeypatch.setattr("analysis.inputs.encode.load_split", loaded(kinds, model))
    context = context_of(tmp_path, kinds, {"train": 120, "valid": 60}, model)
    found = report.evaluate_checkpoint(context, "run", 1000, quiet, {})
    page = report.write_report([found, found], tmp_path / "report").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "$\\frac{a}{b}$ &amp; 100 %" in page
    assert ("better than every other layer" in page) == (layers > 1)
    faces = found.gallery.faces
    assert len(faces) == 3 and faces[0].aspect == pytest.approx(shape[1] / shape[0])
    assert from_array(striped(model, 2, 0)[0]).shape == (2, shape[2], *shape[:2])


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
