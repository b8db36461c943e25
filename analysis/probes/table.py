"""What each layer knows, as tables on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from analysis.figures.charts import TABLES, as_table
from analysis.inputs.context import EvalContext, Progress
from analysis.inputs.encode import held_out, held_out_count
from analysis.probes.estimators import probe_all
from analysis.probes.samples import probe_samples


def probe_context(context: EvalContext, samples: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """What ``probe_all`` gives for up to ``samples`` held-out images. Raises EvalContextError."""
    encoded = held_out(context, samples, progress("held-out codes", held_out_count(context, samples)))
    fitted, scored = probe_samples(context, encoded, progress)
    return probe_all(fitted, scored, progress("what each layer knows", len(scored.targets)))


def print_tables(tables: dict[str, dict[str, Any]], depth: int) -> None:
    """One table a kind on stdout; the layer that knows best, if one clearly does, is marked."""
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a file has no width
    for key, score, title, _ in TABLES:
        rows = as_table(tables, key)
        if not rows:
            continue
        shown = Table(title=title, title_justify="left", box=SIMPLE)
        for heading in ("name", *(f"layer {layer}" for layer in range(depth)), "all", "95 %", "all, network", "n"):
            shown.add_column(heading, no_wrap=True, justify="left" if heading == "name" else "right")
        for name, row in rows.items():
            best = row["best_layer"] if row["best_layer_significant"] else None
            cells = [f"{value:.3f}{'*' if layer == best else ' '}" for layer, value in enumerate(row[score])]
            low, high = row[f"{score}_all_interval"]
            by_all = f"{row[f'{score}_all']:.3f}", f"{low:.2f} … {high:.2f}", f"{row[f'{score}_mlp_all']:.3f}"
            shown.add_row(name, *cells, *by_all, str(row["n"]))
        console.print(shown)
    if not any(tables.values()):
        print("nothing is annotated, or nothing varies: there is nothing to predict")
