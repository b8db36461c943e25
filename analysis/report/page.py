"""The page of a report: which sections it has, and what its templates need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jinja2
import matplotlib

from analysis.figures.charts import COLORS, TABLES, ScoreTable, as_table, sorted_names
from analysis.figures.gallery import Panel
from analysis.report.layer_summary import clear_leader, layer_sentences, plain_name, shared_sentence
from analysis.report.provenance import duration

if TYPE_CHECKING:
    from analysis.report.report import CheckpointReport

FIGURE_ORDER = (
    "swaps",
    "arithmetic_first",
    "knows",
    "face_manifolds",
    "manifolds",
    "reconstructions",
    "samples",
    "interpolations",
    "arithmetic",
    "edits",
    "nearest",
    "training",
    "traversals",
)


@dataclass(frozen=True)
class Section:
    """One section of the page: its anchor, number, title and template; appendices are folded."""

    anchor: str
    number: str
    title: str
    template: str
    folded: bool = False


def render(reports: Sequence[CheckpointReport], comparison: Panel | None) -> str:
    """Renders the page; ``comparison`` is the chart of several checkpoints side by side."""
    loader = jinja2.PackageLoader("analysis.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": plain_name, "duration": duration, "number": number, "span": span}
    environment.globals |= {
        "as_table": as_table,
        "tables": TABLES,
        "sorted_names": sorted_names,
        "heat": heat,
        "layer_sentences": layer_sentences,
        "shared_sentence": shared_sentence,
        "scores_beside": scores_beside,
    }
    numbers: dict[tuple[str, str], int] = {}
    for report in reports:
        for key in FIGURE_ORDER:
            if key in report.gallery.figures:
                numbers[report.name, key] = len(numbers) + 1
    return environment.get_template("report.html").render(
        reports=reports,
        chapters=[(report, sections(report, index, len(reports))) for index, report in enumerate(reports)],
        comparison=comparison,
        figure_numbers=numbers,
        today=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def sections(report: CheckpointReport, index: int, count: int) -> list[Section]:
    """Lists the sections of one checkpoint that have something to show, numbered; appendices have letters."""
    metrics, figures = report.metrics, report.gallery.figures
    annotated = any(as_table(metrics, table.key) for table in TABLES)
    edits, pairs = metrics.get("edits"), (metrics.get("arithmetic") or {}).get("pairs")
    body = [
        ("summary", "In short", True),
        ("move", "Move a layer yourself", bool(report.faces)),
        ("layers", "What each layer holds", True),
        ("levels", "The levels of a face", bool(metrics.get("levels"))),
        ("identity", "Who is shown", bool(metrics.get("identity"))),
        ("quality", "How good the pictures are", True),
        ("arithmetic", "Arithmetic and edits", "arithmetic" in figures or "edits" in figures),
        ("memorization", "Does it remember its training images?", bool(metrics.get("memorization"))),
        ("training", "Training", "training" in figures),
    ]
    appendix = [
        ("scores", "All scores of the probes", annotated),
        ("codes", "The codes in numbers", True),
        ("disentanglement", "Disentanglement", bool(metrics.get("disentanglement"))),
        ("successes", "Arithmetic and edits in numbers", bool(edits or pairs)),
        ("classifier", "How reliable the classifier is", bool(metrics.get("classifier"))),
        ("traversals", "One dimension at a time", "traversals" in figures),
    ]
    prefix = f"{index + 2}." if count > 1 else ""
    anchor = f"{slug(report.name)}-" if count > 1 else ""
    present = [(name, title) for name, title, there in body if there]
    listed = [
        Section(anchor + name, f"{prefix}{i}", title, f"sections/{name}.html")
        for i, (name, title) in enumerate(present, start=1)
    ]
    folded = [(name, title) for name, title, there in appendix if there]
    letters = "ABCDEFGH"
    listed += [
        Section(anchor + "all-" + name, f"{prefix}{letter}", title, f"sections/{name}_table.html", folded=True)
        for letter, (name, title) in zip(letters, folded, strict=False)
    ]
    return listed


def slug(name: str) -> str:
    """A name as an anchor."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "run"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with that many decimals; a dash where it is unknown."""
    return "–" if value is None else f"{value:.{digits}f}"


def span(ends: Sequence[float | None] | None, digits: int = 2) -> str:
    """An interval as 'low … high'; a dash where it is unknown."""
    return "–" if ends is None or None in ends else f"{number(ends[0], digits)} … {number(ends[1], digits)}"


def heat(value: float | None, limits: tuple[float, float]) -> str:
    """CSS colors of a cell: background by the color map, ink that is readable on it; '' where the value is unknown."""
    if value is None:
        return ""
    share = min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))
    red, green, blue, _ = matplotlib.colormaps[COLORS](share, bytes=True)
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{'#fff' if share < 0.55 else '#000'}"


def scores_beside(metrics: Mapping[str, Any], table: ScoreTable) -> list[dict[str, Any]]:
    """Rows of the heat map on the page.

    Returns:
        For each name, best known first: ``name``; ``known`` per layer; ``together`` of all layers; ``best``, the layer
        that knows it, or None; ``leads``, whether that layer clearly leads all others; ``changes`` per layer, or None
        where the classifier cannot tell; ``changer``, the layer that changes it most.
    """
    rows = as_table(metrics, table.key)
    changes = as_table(metrics.get("interventions") or {}, table.key)
    listed = []
    for name in sorted_names(rows, table.score, len(metrics["layers"])):
        row, change = rows[name], changes.get(name)
        listed.append(
            {
                "name": name,
                "known": row[table.score],
                "together": row[f"{table.score}_all"],
                "best": row["best_layer"] if row["best_layer_significant"] else None,
                "leads": clear_leader(row, table.score) is not None,
                "changes": change["change"] if change else None,
                "changer": change["best_layer"] if change else None,
            }
        )
    return listed
