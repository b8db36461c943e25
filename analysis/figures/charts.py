"""The report's charts: the heat map of what each layer knows, and the training curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

matplotlib.rcParams["text.parse_math"] = False  # names of attributes are a stranger's

TABLES = (
    ("attributes", "auc", "Attributes: AUC (0.5 = chance)", (0.5, 1.0)),
    ("factors", "r2", "Known factors: R² (0 = chance)", (0.0, 1.0)),
    ("labels", "accuracy", "Labels: accuracy", (0.0, 1.0)),
)


def as_picture(figure: Figure) -> Image.Image:
    """A matplotlib figure as an image, closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def as_table(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The table ``attributes``, ``factors`` or ``labels`` of metrics.json; {} where there is none."""
    return metrics.get(key) or {}


def heat_map(metrics: Mapping[str, Any]) -> Image.Image | None:
    """Layer × attribute (factor, label): what each layer knows, and beside it what it changes; None without any.

    Sorted by the layer that knows best, which is framed; what no layer knows stands last, without a frame.
    """
    present = [table for table in TABLES if metrics.get(table[0])]
    if not present:
        return None
    layers = len(metrics["layers"])
    sides = 2 if metrics.get("controls") else 1
    heights = [len(as_table(metrics, key)) for key, *_ in present]
    size = (sides * (0.75 * layers + 1) + 2, 0.3 * sum(heights) + 1.1 * len(present))
    figure, axes = plt.subplots(
        len(present), sides, figsize=size, height_ratios=[h + 2 for h in heights], squeeze=False
    )
    for line, (key, score, title, limits) in zip(axes, present, strict=True):
        table = as_table(metrics, key)
        best = {name: row["best_layer"] for name, row in table.items() if row["best_layer_significant"]}
        names = sorted(table, key=lambda name: (best.get(name, layers), -max(table[name][score])))
        known = np.array([[*table[name][score], table[name][f"{score}_all"]] for name in names])
        _draw_table(line[0], names, known, best, limits)
        line[0].set_xticks(range(layers + 1), [*(f"layer {i}" for i in range(layers)), "all"], fontsize=8)
        line[0].set_title(f"knows: {title}", fontsize=9, loc="left")
        if sides == 2:
            changes = as_table(metrics["controls"], key)
            values = np.array([changes[n]["change"] if n in changes else [np.nan] * layers for n in names])
            best = {name: row["best_layer"] for name, row in changes.items()}
            _draw_table(line[1], names, values, best, (0.0, 1.0))
            line[1].set_title("changes: share of all layers' change", fontsize=9, loc="left")
            line[1].set_yticks([])
    figure.tight_layout()
    return as_picture(figure)


def _draw_table(
    axis: Axes, names: Sequence[str], values: np.ndarray, best: Mapping[str, int], limits: tuple[float, float]
) -> None:
    """Values (len(names), columns) as a heat map with their figures; NaN stays empty; ``best``: the framed column."""
    axis.imshow(values, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    for row, name in enumerate(names):
        for column, value in enumerate(values[row]):
            if np.isfinite(value):
                dark = (value - limits[0]) / (limits[1] - limits[0]) < 0.6
                color = "white" if dark else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
        if name in best:
            axis.add_patch(Rectangle((best[name] - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="red", lw=1.6))
    columns = [f"layer {i}" for i in range(values.shape[1])]
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Image.Image:
    """Checkpoints side by side against their training step: reconstruction, effects and what all layers know.

    ``runs`` is {name: its metrics}.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    order = sorted(runs, key=lambda name: runs[name]["step"])
    steps = [runs[name]["step"] for name in order]
    for split, style in (("train", "o--"), ("valid", "o-")):
        axes[0].plot(steps, [runs[name]["reconstruction"][split]["l1"] for name in order], style, label=split)
    axes[0].set(title="Reconstruction L1, values in [0, 1]")
    for layer in range(max(len(runs[name]["layers"]) for name in order)):
        effects = [[entry["effect"] for entry in runs[name]["layers"]][layer : layer + 1] for name in order]
        axes[1].plot(steps, [effect[0] if effect else np.nan for effect in effects], "o-", label=f"layer {layer}")
    axes[1].set(title="Effect of each layer", ylim=(0, None))
    for key, score, title, _ in TABLES:
        known = [[row[f"{score}_all"] for row in as_table(runs[name], key).values()] for name in order]
        if all(known):
            axes[2].plot(steps, [float(np.mean(scores)) for scores in known], "o-", label=title.split(" (")[0])
    axes[2].set(title="Known to all layers together, mean")
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        for name, step in zip(order, steps, strict=True):
            axis.annotate(
                name,
                (step, 0),
                (0, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=6,
                rotation=90,
            )
    figure.tight_layout()
    return as_picture(figure)


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
    axes[1, 0].axhline(0.1, color="gray", ls=":", lw=1)
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
