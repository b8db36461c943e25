"""The report's charts: the heat map of what each layer knows, and the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from analysis.pictures import as_picture

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

TABLES = (
    ("attributes", "auc", "Attributes: AUC (0.5 = chance)", (0.5, 1.0)),
    ("factors", "r2", "Known factors: R² (0 = chance)", (0.0, 1.0)),
    ("labels", "accuracy", "Labels: accuracy", (0.0, 1.0)),
)


def heat_map(metrics: Mapping[str, Any], layers: int) -> Image.Image | None:
    """Layer × attribute (factor, label) by boosted trees, sorted by best layer, that layer framed; None without any."""
    present = [table for table in TABLES if metrics.get(table[0])]
    if not present:
        return None
    heights = [len(metrics[key]) for key, *_ in present]
    figure, axes = plt.subplots(
        len(present),
        1,
        figsize=(1.1 * layers + 4, 0.32 * sum(heights) + 1.1 * len(present)),
        height_ratios=[h + 2 for h in heights],
        squeeze=False,
    )
    for axis, (key, score, title, limits) in zip(axes[:, 0], present, strict=True):
        _draw_table(axis, metrics[key], score, limits)
        axis.set_title(title, fontsize=10, loc="left")
    figure.tight_layout()
    return as_picture(figure)


def _draw_table(axis: Axes, table: Mapping[str, Any], score: str, limits: tuple[float, float]) -> None:
    names = sorted(table, key=lambda name: (table[name]["best_layer"], -max(table[name][score])))
    values = np.array([[*table[name][score], table[name][f"{score}_all"]] for name in names])
    axis.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    for row, name in enumerate(names):
        for column, value in enumerate(values[row]):
            dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.6
            axis.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
        axis.add_patch(
            Rectangle((table[name]["best_layer"] - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", lw=1.6)
        )
    layers = values.shape[1] - 1
    ends = {0: "\n(bottom)", layers - 1: "\n(top)"} if layers > 1 else {}
    axis.set_xticks(range(layers + 1), [f"layer {i}{ends.get(i, '')}" for i in range(layers)] + ["all"], fontsize=8)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)


def training_curves(lines: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """Reconstruction, distance to the prior, layers' effects and learning rate against steps; None without a log."""
    train = [line for line in lines if "reconstruction" in line]
    valid = [line for line in lines if "valid" in line]
    if not train:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.2))
    steps = [line["step"] for line in train]
    axes[0, 0].plot(steps, [line["reconstruction"] for line in train], label="train")
    if valid:
        axes[0, 0].plot(
            [v["step"] for v in valid], [v["valid"]["l1"] for v in valid], "o-", label="valid, averaged weights"
        )
    axes[0, 0].set(title="Reconstruction error, values in [−1, 1]", yscale="log")
    axes[0, 0].legend(fontsize=8)
    name = "mmd" if "mmd" in train[0] else "kl"
    for layer in range(len(train[0][name])):
        axes[0, 1].plot(steps, [line[name][layer] for line in train], label=f"layer {layer}", lw=1)
    title = "MMD² to the prior (unbiased; 0 = matches it)" if name == "mmd" else "KL to the prior, nats"
    axes[0, 1].set(title=title)
    if name == "mmd":
        axes[0, 1].set_yscale("symlog", linthresh=1e-3)
    axes[0, 1].legend(fontsize=8)
    for layer in range(len(valid[0]["valid"]["effect"]) if valid else 0):
        axes[1, 0].plot(
            [v["step"] for v in valid], [v["valid"]["effect"][layer] for v in valid], "o-", label=f"layer {layer}"
        )
    axes[1, 0].axhline(0.1, color="grey", ls=":", lw=1)
    axes[1, 0].set(title="Effect of each layer (0 = the decoder ignores it)", ylim=(0, None))
    if valid:
        axes[1, 0].legend(fontsize=8)
    axes[1, 1].plot(steps, [line["lr"] for line in train])
    axes[1, 1].set(title="Learning rate")
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
    figure.tight_layout()
    return as_picture(figure)
