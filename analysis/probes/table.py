"""Scores of the probes as tables on the terminal."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.figures.charts import TABLES, as_table
from pipeline.run.run_dir import without_nan
from preprocess.shards.atomic import write_file, write_json


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
        write_json(path, without_nan(tables))
        return
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["kind", "name", "score", *(f"layer{layer}" for layer in range(depth)), "all", "chance", "n"])
    for table in TABLES:
        for name, row in as_table(tables, table.key).items():
            main = table.score if table.score in row else f"{table.score}_linear"
            writer.writerow([table.key, name, main, *row[main], row[f"{main}_all"], row["chance"], row["n"]])
    write_file(path, stream.getvalue().encode())
