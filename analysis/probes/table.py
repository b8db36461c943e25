"""Scores of the probes as tables on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from analysis.figures.charts import TABLES, as_table
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import encoded_split, held_out, held_out_count, split_size
from analysis.probes.dataset import FIT_LIMIT, probe_sample
from analysis.probes.estimators import probe_all


def probe_context(context: EvalContext, samples: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Fits probes on training images and scores them on up to ``samples`` held-out ones: what ``probe_all`` returns.

    Shards without a train split: fits on one half of the held-out images and scores on the other.

    Raises:
        EvalContextError: there are too few held-out images.
        ShardError: a shard is damaged.
    """
    count = held_out_count(context, samples)
    scored = probe_sample(context, held_out(context, samples, progress("codes of held-out images", count)))
    available = min(FIT_LIMIT, split_size(context.shards, "train"))
    if not available:
        return probe_all(*scored.halves(), progress)
    encoded = encoded_split(context, "train", available, progress("codes of training images", available))
    return probe_all(probe_sample(context, encoded), scored, progress)


def print_tables(tables: dict[str, dict[str, Any]], depth: int) -> None:
    """Prints one table for each kind on stdout; ``*`` marks the best layer where it is clearly above chance."""
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a file has no width
    for key, score, title, _ in TABLES:
        rows = as_table(tables, key)
        if not rows:
            continue
        shown = Table(title=title, title_justify="left", box=SIMPLE)
        for heading in ("name", *(f"layer {layer}" for layer in range(depth)), "all", "95 %", "all, MLP", "n"):
            shown.add_column(heading, no_wrap=True, justify="left" if heading == "name" else "right")
        for name, row in rows.items():
            best = row["best_layer"] if row["best_layer_significant"] else None
            cells = [f"{value:.3f}{'*' if layer == best else ' '}" for layer, value in enumerate(row[score])]
            low, high = row[f"{score}_all_interval"]
            by_all = f"{row[f'{score}_all']:.3f}", f"{low:.2f} … {high:.2f}", f"{row[f'{score}_mlp_all']:.3f}"
            shown.add_row(name, *cells, *by_all, str(row["n"]))
        console.print(shown)
    if not any(tables.values()):
        print("the images have no annotations that vary: there is nothing to predict")
