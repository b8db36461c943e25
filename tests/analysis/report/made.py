"""A report made by hand, with everything that a page can show; tests take parts away."""

from PIL import Image

from analysis.figures.gallery import CAPTIONS, Gallery, Slider, SliderFace
from analysis.figures.tiles import data_uri
from analysis.report.report import CheckpointReport

LAYERS = 3
TILE = data_uri(Image.new("RGB", (16, 16), "teal"))


def _scores(score, best=1, chance=0.5):
    values = [0.9 if layer == best else 0.6 for layer in range(LAYERS)]
    intervals = [[value - 0.02, value + 0.02] for value in values]
    row = {"best_layer": best, "best_layer_significant": True, "chance": chance, "n": 40, "n_fit": 80}
    for kind in ("", "_linear"):
        row |= {f"{score}{kind}": values, f"{score}{kind}_interval": intervals}
        row |= {f"{score}{kind}_all": 0.95, f"{score}{kind}_all_interval": [0.9, 0.97]}
    return row


def _errors(l1):
    figures = {"l1": l1, "psnr": 20.0, "ssim": 0.7, "n": 40}
    return figures | {f"{key}_interval": [figures[key], figures[key]] for key in ("l1", "psnr", "ssim")}


def whole_metrics():
    """The content of metrics.json with every optional field."""
    moments = dict.fromkeys(("mean", "std", "skewness", "excess_kurtosis", "correlation"), 0.1)
    layer = {"dim": 4, "active_units": 3, "mean_std": 0.1, "mmd": 0.001, "moments": moments, "effect": 0.5}
    layer |= {"effect_interval": [0.4, 0.6], "n": 40, "n_effect": 40}
    pair = {"s": "Male", "t": "Smiling", "n": 240, "n_images": [9, 9, 9], "success_per_layer": [0.1] * LAYERS}
    for key in ("success", "success_plain", "success_direction", "chance", "reconstruction_ceiling"):
        pair |= {key: 0.5, f"{key}_interval": [0.4, 0.6]}
    pair |= {"unrelated_preserved": 0.8, "classifier_auc": {"Male": 0.9, "Smiling": 0.9}}
    parts = {"dci": {"disentanglement": 0.5, "completeness": 0.4}, "mig": 0.1, "mig_interval": [0.0, 0.2]}
    parts |= {"sap": 0.1, "sap_interval": [0.0, 0.2]}
    change = {"change": [0.2, 0.8, 0.1], "best_layer": 1}
    edit = {"target": 0.5, "target_interval": [0.4, 0.6], "others": 0.1, "target_per_layer": [0.1] * LAYERS, "n": 40}
    score = {"interval": [0.8, 0.9], "n": 40}
    return {
        "step": 100,
        "samples_seen": 3200,
        "held_out": 40,
        "provenance": {
            "recipe": "demo",
            "data": "celeba zip",
            "trained_on_these_shards": True,
            "images": {"train": 80, "valid": 20, "test": 20},
            "image_shape": [32, 32, 3],
            "parameters": 1_234_567,
            "training_seconds": 75.0,
            "hardware": "1 x CPU",
            "versions": {"mmd-vlae": "1.0.0", "torch": "2.0"},
            "checkpoint_sha256": "0123456789abcdef" * 4,
        },
        "reconstruction": {"train": _errors(0.05), "valid": _errors(0.06)},
        "layers": [layer] * LAYERS,
        "attributes": {"Mouth_Slightly_Open": _scores("auc"), "<b>Odd</b>": _scores("auc", best=0)},
        "factors": {"background_warmth": _scores("r2", chance=0.0)},
        "labels": {"label": _scores("accuracy")},
        "interventions": {"attributes": {"Mouth_Slightly_Open": change}, "factors": {}, "labels": {}},
        "memorization": {
            "generalization_gap": 0.02,
            "generalization_gap_interval": [0.0, 0.04],
            "nearest_train_ratio": 1.0,
            "nearest_train_ratio_interval": [0.9, 1.1],
            "nearest_train_ratio_features": 1.0,
            "nearest_train_ratio_features_interval": [0.9, 1.1],
            "n_samples": 40,
            "n_held_out": 40,
            "n_train": 80,
        },
        "sample_quality": {
            "kid_classifier_features": 0.1,
            "kid_classifier_features_interval": [0.0, 0.2],
            "kid_of_training_images": 0.01,
            "n": 40,
            "n_inception": 40,
            "kid_inception": 0.1,
            "kid_inception_std": 0.01,
            "fid": None,
        },
        "disentanglement": parts
        | {"dci": parts["dci"] | {"informativeness": 0.5}, "n": 40, "factors": ["x"], "layers": [parts] * LAYERS},
        "arithmetic": {"pairs": [pair], "success": 0.5, "reconstruction_ceiling": 0.8, "chance": 0.1},
        "edits": {"Smiling": edit},
        "classifier": {
            "n_train": 80,
            "scores": {
                "attribute": {"Male": score | {"auc": 0.9}},
                "factor": {"yaw": score | {"r2": 0.5}},
                "label": {},
            },
        },
    }


OPTIONAL = (
    *("attributes", "factors", "labels", "interventions", "disentanglement", "arithmetic", "edits", "classifier"),
    "sample_quality",
)
"""Fields of metrics.json that may be absent or empty."""


def whole_report(name="run", without=()):
    """A report with every figure, but for the fields of metrics.json in ``without``."""
    sliders = (Slider("mouth_open", TILE), Slider("direction 2", TILE))
    faces = [SliderFace(TILE, (sliders,) * LAYERS)] * 2
    gallery = Gallery(faces=faces, notes=["Left out of the arithmetic: nothing."])
    wide, narrow = Image.new("RGB", (1300, 400), "teal"), Image.new("RGB", (300, 300), "navy")
    for key in CAPTIONS:
        if key.endswith(("manifold", "traversals")):
            gallery.add(key, [narrow] * LAYERS, [f"layer {layer}" for layer in range(LAYERS)])
        else:
            gallery.add(key, wide)
    metrics = {key: value for key, value in whole_metrics().items() if key not in without}
    return CheckpointReport(name, metrics, gallery, ["A warning."])
