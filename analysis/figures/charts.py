"""Charts of measurements: the heat map of what layers know and change, training curves, checkpoints side by side."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.tiles import short_label

COLORS = "cividis"  # light and dark differ for every kind of color vision
DARK = 0.47  # share of the color map below which white figures are easier to read than black ones
UNKNOWN = "0.88"  # gray of rows that no layer knows
LINE_STYLES = ("-", "--", "-.", ":")  # layers differ by more than their color


class ScoreTable(NamedTuple):
    """One kind of target in metrics.json: its key, the score's key, and how the score is named and drawn."""

    key: str
    score: str
    title: str
    unit: str
    limits: tuple[float, float]


TABLES = (
    ScoreTable("attributes", "auc", "Attributes: AUC (0.5 = chance)", "AUC", (0.5, 1.0)),
    ScoreTable("factors", "r2", "Known factors: R² (0 = chance)", "R²", (0.0, 1.0)),
    ScoreTable("labels", "accuracy", "Labels: accuracy", "accuracy", (0.0, 1.0)),
)


def as_picture(figure: Figure) -> Image.Image:
    """Renders a matplotlib figure and closes it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some scripts; the page itself shows all names
        figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    plt.close(figure)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def as_table(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns the table ``attributes``, ``factors`` or ``labels`` of metrics.json; {} where there is none."""
    return metrics.get(key) or {}


def sorted_names(table: Mapping[str, Any], score: str, layers: int) -> list[str]:
    """Sorts the names of a table by the layer that knows them best, then by score; what no layer knows comes last."""

    def order(name: str) -> tuple[int, float]:
        row = table[name]
        return (row["best_layer"] if row["best_layer_significant"] else layers, -max(map(_number, row[score])))

    return sorted(table, key=order)


def heat_map(metrics: Mapping[str, Any]) -> Image.Image | None:
    """Draws what each layer knows of each target and, beside it, what it changes.

    The best layer of a row has a black frame and bold figures. A row that no layer knows is gray.

    Args:
        metrics: The content of metrics.json for one checkpoint.

    Returns:
        None where nothing is annotated.
    """
    present = [table for table in TABLES if metrics.get(table.key)]
    if not present:
        return None
    layers = len(metrics["layers"])
    sides = 2 if metrics.get("interventions") else 1
    heights = [len(as_table(metrics, table.key)) for table in present]
    size = (sides * (0.62 * layers + 1.6) + 1.6, 0.26 * sum(heights) + 1.1 * len(present))
    figure, axes = plt.subplots(
        len(present), sides, figsize=size, height_ratios=[h + 2 for h in heights], squeeze=False, layout="constrained"
    )
    for line, table in zip(axes, present, strict=True):
        rows = as_table(metrics, table.key)
        names = sorted_names(rows, table.score, layers)
        scores = [[*rows[name][table.score], rows[name][f"{table.score}_all"]] for name in names]
        best = [rows[name]["best_layer"] if rows[name]["best_layer_significant"] else None for name in names]
        _draw_table(line[0], np.array(scores, float), best, table.limits)
        line[0].set_xticks(range(layers + 1), [*map(str, range(layers)), "all"], fontsize=8)
        line[0].set_yticks(range(len(names)), [short_label(name) for name in names], fontsize=8)
        for label in line[0].get_yticklabels():
            label.set_parse_math(False)  # names are the data set's; $ is an ordinary character
        line[0].set_title(f"knows ({table.unit})", fontsize=9)
        if sides == 2:
            changes = as_table(metrics["interventions"], table.key)
            values = np.array([changes[n]["change"] if n in changes else [np.nan] * layers for n in names], float)
            marked = [changes[n]["best_layer"] if n in changes else None for n in names]
            _draw_table(line[1], values, marked, (0.0, 1.0))
            line[1].set_xticks(range(layers), [str(i) for i in range(layers)], fontsize=8)
            line[1].set_yticks([])
            line[1].set_title("changes (share)", fontsize=9)
        for axis in line:
            axis.set_xlabel("layer", fontsize=8)
    return as_picture(figure)


def _draw_table(axis: Axes, values: np.ndarray, best: Sequence[int | None], limits: tuple[float, float]) -> None:
    """Draws values (rows, columns) with their figures.

    ``best`` is each row's framed column. A row without one is gray; NaN stays empty.
    """
    clear = np.array([column is not None for column in best])
    axis.set_facecolor("white")
    axis.imshow(np.where(clear[:, None], values, np.nan), cmap=COLORS, vmin=limits[0], vmax=limits[1], aspect="auto")
    for row, column in enumerate(best):
        if column is None and np.isfinite(values[row]).any():
            axis.add_patch(Rectangle((-0.5, row - 0.5), values.shape[1], 1, color=UNKNOWN, lw=0))
        if column is not None:
            axis.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="white", lw=2.6))
            axis.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="black", lw=1.4))
        for i, value in enumerate(values[row]):
            if np.isfinite(value):
                dark = (value - limits[0]) / (limits[1] - limits[0]) < DARK
                ink = "0.45" if column is None else "white" if dark else "black"
                weight = "bold" if i == column else "normal"
                axis.text(i, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink, weight=weight)


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Image.Image:
    """Draws checkpoints beside each other: reconstruction, effects and what all layers know together.

    Args:
        runs: Name of each checkpoint -> its metrics. They are drawn in the order of their training steps.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    order = sorted(runs, key=lambda name: runs[name]["step"])
    places = range(len(order))
    for split, style in (("train", "o--"), ("valid", "o-")):
        errors = [_number(runs[name]["reconstruction"][split]["l1"]) for name in order]
        axes[0].plot(places, errors, style, label="held out" if split == "valid" else split)
    axes[0].set(title="Reconstruction L1, values in [0, 1]")
    for layer in range(max(len(runs[name]["layers"]) for name in order)):
        effects = [[entry["effect"] for entry in runs[name]["layers"][layer : layer + 1]] for name in order]
        values = [_number(effect[0] if effect else None) for effect in effects]
        axes[1].plot(places, values, "o" + LINE_STYLES[layer % 4], label=f"layer {layer}")
    axes[1].set(title="Effect of each layer", ylim=(0, None))
    for table in TABLES:
        known = [[_number(row[f"{table.score}_all"]) for row in as_table(runs[n], table.key).values()] for n in order]
        if all(known):
            axes[2].plot(places, [float(np.mean(scores)) for scores in known], "o-", label=table.title.split(" (")[0])
    axes[2].set(title="Known to all layers together, mean")
    names = [f"{short_label(name)}\nstep {runs[name]['step']}" for name in order]
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        for label in axis.get_xticklabels():
            label.set_parse_math(False)
    return as_picture(figure)


def training_curves(
    lines: Sequence[Mapping[str, Any]], reconstruction: Literal["l1", "l2"] = "l1"
) -> Image.Image | None:
    """Draws reconstruction, distance to the prior, layers' effects and learning rate against steps.

    Args:
        lines: The lines of metrics.jsonl. Their errors are of values in [−1, 1]; they are drawn in [0, 1].
        reconstruction: The recipe's error: l1 is drawn as it is, l2 (a mean square) as its root.

    Returns:
        None without training lines.
    """
    train = [line for line in lines if "reconstruction" in line]
    valid = [line for line in lines if "valid" in line]
    if not train:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    steps, valid_steps = [line["step"] for line in train], [line["step"] for line in valid]
    power = 1.0 if reconstruction == "l1" else 0.5
    errors = [_number(line["reconstruction"]) ** power / 2 for line in train]
    axes[0, 0].plot(steps, errors, label="train")
    if valid:
        key = "l1" if reconstruction == "l1" else "mse"
        errors = [_number(v["valid"][key]) ** power / 2 for v in valid]
        axes[0, 0].plot(valid_steps, errors, "o--", label="valid, averaged weights")
    name = "L1" if reconstruction == "l1" else "root mean square error"
    axes[0, 0].set(title=f"Reconstruction {name}, values in [0, 1]", yscale="log")
    name = "mmd" if "mmd" in train[0] else "kl"
    for layer in range(len(train[0][name])):
        values = [_number(line[name][layer]) for line in train]
        axes[0, 1].plot(steps, values, LINE_STYLES[layer % 4], label=f"layer {layer}", lw=1.2)
    axes[0, 1].set(title="MMD² to the prior (unbiased; 0 = equal)" if name == "mmd" else "KL to the prior, nats")
    if name == "mmd":
        axes[0, 1].set_yscale("symlog", linthresh=1e-3)
    for layer in range(len(valid[0]["valid"]["effect"]) if valid else 0):
        values = [_number(v["valid"]["effect"][layer]) for v in valid]
        axes[1, 0].plot(valid_steps, values, "o" + LINE_STYLES[layer % 4], label=f"layer {layer}")
    axes[1, 0].axhline(0.1, color="gray", ls=":", lw=1)
    axes[1, 0].set(title="Effect of each layer (0 = the decoder ignores it)", ylim=(0, None))
    axes[1, 1].plot(steps, [_number(line["lr"]) for line in train])
    axes[1, 1].set(title="Learning rate")
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    return as_picture(figure)


def _number(value: float | None) -> float:
    """JSON has null for what is not finite; a curve has a gap there."""
    return float("nan") if value is None else value
