"""Charts of measurements: the heat map of what layers know and change, training curves, checkpoints side by side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures.tiles import font, short_label

COLORS = "cividis"  # light and dark differ for every kind of color vision
DARK = 0.47  # share of the color map below which white figures are easier to read than black ones
UNKNOWN = (224, 224, 224)  # gray of rows that no layer knows
CELL = (60, 28)  # pixels of a cell of the heat map
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
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(130)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks some scripts; the page itself shows all names
        canvas.draw()
    plt.close(figure)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def as_table(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The table ``attributes``, ``factors`` or ``labels`` of metrics.json; {} where there is none."""
    return metrics.get(key) or {}


def sorted_names(table: Mapping[str, Any], score: str, layers: int) -> list[str]:
    """The names of a table by the layer that knows them best, then by score; what no layer knows comes last."""

    def order(name: str) -> tuple[int, float]:
        row = table[name]
        return (row["best_layer"] if row["best_layer_significant"] else layers, -max(map(_number, row[score])))

    return sorted(table, key=order)


def heat_map(metrics: Mapping[str, Any]) -> Image.Image | None:
    """Draws what each layer knows of each target and, beside it, what it changes.

    The best layer of a row has a black frame and bold figures. A row that no layer knows is gray. An empty cell: the
    classifier cannot tell.

    Args:
        metrics: The content of metrics.json for one checkpoint.

    Returns:
        The picture; None where nothing is annotated.
    """
    layers, changing = len(metrics["layers"]), metrics.get("interventions") or {}
    known = {table: as_table(metrics, table.key) for table in TABLES if as_table(metrics, table.key)}
    if not known:
        return None
    left = 24 + max(int(font(15).getlength(short_label(name))) for rows in known.values() for name in rows)
    right = left + (layers + 1) * CELL[0] + 32
    height = sum((len(rows) + 2) * CELL[1] + 24 for rows in known.values())
    sheet = Image.new("RGB", (right + (layers * CELL[0] if changing else 0) + 8, height), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for table, rows in known.items():
        changed, columns = as_table(changing, table.key), [str(layer) for layer in range(layers)]
        _draw_head(pen, (left, top), f"known to layer ({table.unit})", [*columns, "all"])
        if changing:
            _draw_head(pen, (right, top), "changed by layer (share)", columns)
        for line, name in enumerate(sorted_names(rows, table.score, layers), start=2):
            row, y = rows[name], top + line * CELL[1]
            best = row["best_layer"] if row["best_layer_significant"] else None
            pen.text((left - 10, y + CELL[1] / 2), short_label(name), "black", font(15), "rm")
            scores = [*row[table.score], row[f"{table.score}_all"]]
            _draw_row(pen, (left, y), scores, best, best is None, table.limits)
            if name in changed:
                most = None if best is None else changed[name]["best_layer"]
                _draw_row(pen, (right, y), changed[name]["change"], most, best is None, (0.0, 1.0))
        top += (len(rows) + 2) * CELL[1] + 24
    return sheet


def _draw_head(pen: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, columns: Sequence[str]) -> None:
    x, y = corner
    pen.text((x, y + CELL[1] / 2), title, "black", font(15), "lm")
    for i, column in enumerate(columns):
        pen.text((x + (i + 0.5) * CELL[0], y + 1.5 * CELL[1]), column, "black", font(15), "mm")


def _draw_row(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    values: Sequence[float | None],
    framed: int | None,
    gray: bool,
    limits: tuple[float, float],
) -> None:
    """Draws cells with their figures from ``corner`` to the right; one is framed and bold, unknown ones stay empty."""
    for i, value in enumerate(values):
        if value is None:
            continue
        x, y = corner[0] + i * CELL[0], corner[1]
        share = (value - limits[0]) / (limits[1] - limits[0])
        color = UNKNOWN if gray else matplotlib.colormaps[COLORS](min(1.0, max(0.0, share)), bytes=True)[:3]
        pen.rectangle((x, y, x + CELL[0] - 1, y + CELL[1] - 1), tuple(int(part) for part in color))
        if i == framed:
            pen.rectangle((x + 1, y + 1, x + CELL[0] - 2, y + CELL[1] - 2), outline="black", width=2)
            pen.rectangle((x + 3, y + 3, x + CELL[0] - 4, y + CELL[1] - 4), outline="white", width=1)
        ink = (110, 110, 110) if gray else "white" if share < DARK else "black"
        middle = (x + CELL[0] / 2, y + CELL[1] / 2)
        pen.text(middle, f"{value:.2f}", ink, font(14, bold=i == framed), "mm")


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Image.Image:
    """Draws checkpoints beside each other: reconstruction, effects and what all layers know together.

    ``runs`` has the metrics of each by its name; they are drawn in the order of their training steps.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    order = sorted(runs, key=lambda name: runs[name]["step"])
    metrics, places = [runs[name] for name in order], range(len(order))
    for split, style, label in (("train", "o--", "train"), ("valid", "o-", "held out")):
        axes[0].plot(places, [_number(run["reconstruction"][split]["l1"]) for run in metrics], style, label=label)
    axes[0].set(title="Reconstruction L1, values in [0, 1]")
    for layer in range(max(len(run["layers"]) for run in metrics)):
        effects = [run["layers"][layer]["effect"] if layer < len(run["layers"]) else None for run in metrics]
        axes[1].plot(places, [*map(_number, effects)], "o" + LINE_STYLES[layer % 4], label=f"layer {layer}")
    axes[1].set(title="Effect of each layer", ylim=(0, None))
    for table in TABLES:
        scores = [[_number(row[f"{table.score}_all"]) for row in as_table(run, table.key).values()] for run in metrics]
        if all(scores):
            axes[2].plot(places, [float(np.mean(each)) for each in scores], "o-", label=table.title.split(" (")[0])
    axes[2].set(title="Known to all layers together, mean")
    names = [f"{short_label(name)}\nstep {runs[name]['step']}" for name in order]
    for axis in axes:
        axis.set_xticks(places, names, rotation=30, ha="right", fontsize=8)
        for label in axis.get_xticklabels():
            label.set_parse_math(False)
    return _finished(figure)


def training_curves(
    lines: Sequence[Mapping[str, Any]], reconstruction: Literal["l1", "l2"] = "l1"
) -> Image.Image | None:
    """Draws reconstruction, distance to the prior, layers' effects and learning rate against steps.

    Args:
        lines: The lines of metrics.jsonl. Their errors are of values in [−1, 1]; they are drawn in [0, 1].
        reconstruction: The recipe's error: l1 is drawn as it is, l2 (a mean square) as its root.

    Returns:
        The picture; None without training lines.
    """
    train = [line for line in lines if "reconstruction" in line]
    valid = [line["valid"] | {"step": line["step"]} for line in lines if "valid" in line]
    if not train:
        return None
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    steps, valid_steps = ([line["step"] for line in part] for part in (train, valid))
    key, power, error = ("l1", 1.0, "L1") if reconstruction == "l1" else ("mse", 0.5, "root mean square error")
    axes[0, 0].plot(steps, [_number(line["reconstruction"]) ** power / 2 for line in train], label="train")
    if valid:
        errors = [_number(line[key]) ** power / 2 for line in valid]
        axes[0, 0].plot(valid_steps, errors, "o--", label="valid, averaged weights")
    axes[0, 0].set(title=f"Reconstruction {error}, values in [0, 1]", yscale="log")
    term = "mmd" if "mmd" in train[0] else "kl"
    for layer in range(len(train[0][term])):
        values = [_number(line[term][layer]) for line in train]
        axes[0, 1].plot(steps, values, LINE_STYLES[layer % 4], label=f"layer {layer}", lw=1.2)
    axes[0, 1].set(title="MMD² to the prior (unbiased; 0 = equal)" if term == "mmd" else "KL to the prior, nats")
    if term == "mmd":
        axes[0, 1].set_yscale("symlog", linthresh=1e-3)
    for layer in range(len(valid[0]["effect"]) if valid else 0):
        values = [_number(line["effect"][layer]) for line in valid]
        axes[1, 0].plot(valid_steps, values, "o" + LINE_STYLES[layer % 4], label=f"layer {layer}")
    axes[1, 0].axhline(0.1, color="gray", ls=":", lw=1)
    axes[1, 0].set(title="Effect of each layer (0 = the decoder ignores it)", ylim=(0, None))
    axes[1, 1].plot(steps, [_number(line["lr"]) for line in train])
    axes[1, 1].set(title="Learning rate")
    for axis in axes.flat:
        axis.set_xlabel("step")
    return _finished(figure)


def _finished(figure: Figure) -> Image.Image:
    for axis in figure.axes:
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    return as_picture(figure)


def _number(value: float | None) -> float:
    """JSON has null for what is not finite; a curve has a gap there."""
    return float("nan") if value is None else value
