"""Scores of the probes as tables on the terminal."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.figures.charts import TABLES, as_table
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import encoded_split, held_out, held_out_count, split_size
from analysis.model.names import match_attribute
from analysis.probes.dataset import FIT_LIMIT, probe_sample
from analysis.probes.estimators import probe_all
from preprocess.shards.atomic import write_file, write_json


def probe_context(
    context: EvalContext, samples: int, progress: Progress, names: Sequence[str] = (), linear_only: bool = False
) -> dict[str, dict[str, Any]]:
    """Fits probes on training images and scores them on held-out ones: what ``probe_all`` returns.

    Shards without a train split: fits on one half of the held-out images and scores on the other.

    Args:
        context: the model and its shards.
        samples: at most this many images on each side.
        progress: told what is being done.
        names: attributes, factors or labels to probe, in any case; none = all.
        linear_only: fit linear probes only.

    Raises:
        EvalContextError: there are too few held-out images.
        ShardError: a shard is damaged.
        UsageError: there is nothing of a name; the message gives the nearest.
    """
    manifest = context.shards.manifest
    known = [*manifest.attribute_names, *manifest.factor_names, "label"]
    wanted = {match_attribute(name, known) for name in names}
    count = held_out_count(context, samples)
    scored = probe_sample(context, held_out(context, samples, progress("codes of held-out images", count)))
    if wanted:
        scored = replace(scored, targets=[target for target in scored.targets if target.name in wanted])
    available = min(FIT_LIMIT, samples, split_size(context.shards, "train"))
    if not available:
        return probe_all(*scored.halves(), progress, linear_only)
    encoded = encoded_split(context, "train", available, progress("codes of training images", available))
    fitted = probe_sample(context, encoded)
    if wanted:
        fitted = replace(fitted, targets=[target for target in fitted.targets if target.name in wanted])
    return probe_all(fitted, scored, progress, linear_only)


def print_tables(tables: dict[str, dict[str, Any]], depth: int, linear: bool = False) -> None:
    """Prints one table for each kind on stdout; ``*`` marks the best layer where it is clearly above chance.

    Four layers fit into 80 columns. Numbers are never cut: names are, and with more layers the table is wider.
    """
    for table in TABLES:
        rows, score = as_table(tables, table.key), table.score
        if not rows:
            continue
        main = f"{score}_linear" if linear else score
        shown = Table(title=table.title, title_justify="left", box=None, pad_edge=False)
        shown.add_column("name", overflow="ellipsis", no_wrap=True, max_width=22)
        for heading in (*(f"layer {layer}" for layer in range(depth)), "all", "95 %", "n"):
            shown.add_column(heading, no_wrap=True, justify="right")
        for name, row in rows.items():
            best = row["best_layer"] if row["best_layer_significant"] else None
            cells = [f"{value:.3f}{'*' if layer == best else ' '}" for layer, value in enumerate(row[main])]
            low, high = row[f"{main}_all_interval"]
            shown.add_row(name, *cells, f"{row[f'{main}_all']:.3f}", f"{low:.2f}…{high:.2f}", str(row["n"]))
        width = 22 + 8 * depth + 6 + 12 + 7
        Console(width=max(width, 80 if not sys.stdout.isatty() else Console().width)).print(shown)
    if not any(tables.values()):
        print("the images have no annotations that vary: there is nothing to predict")


def write_tables(tables: dict[str, dict[str, Any]], depth: int, path: Path) -> None:
    """Writes the tables to a .json file, with all intervals, or to a .csv file of one line for each target."""
    if path.suffix.lower() == ".json":
        write_json(path, _finite(tables))
        return
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["kind", "name", "score", *(f"layer{layer}" for layer in range(depth)), "all", "chance", "n"])
    for table in TABLES:
        for name, row in as_table(tables, table.key).items():
            main = table.score if table.score in row else f"{table.score}_linear"
            writer.writerow([table.key, name, main, *row[main], row[f"{main}_all"], row["chance"], row["n"]])
    write_file(path, stream.getvalue().encode())


def _finite(value: Any) -> Any:
    """The same plain values with None for numbers that are not finite: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
