"""The page of a report: which sections it has, and what its templates need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jinja2
import matplotlib

from analysis.figures.charts import COLORS, DARK, TABLES, ScoreTable, as_table, sorted_names
from analysis.figures.gallery import Panel
from analysis.figures.motion import FRAMES
from analysis.report.layer_summary import clear_leader, layer_sentences, number, plain_name, shared_sentence

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
    """One section of the page: its anchor, number and title, and its name in the templates; appendices are folded."""

    name: str
    anchor: str
    number: str
    title: str
    folded: bool = False
    explained: bool = False
    """Whether an earlier checkpoint's section of this name has said how to read it."""


def render(reports: Sequence[CheckpointReport], comparison: Panel | None) -> str:
    """Renders the page; ``comparison`` is the chart of several checkpoints side by side."""
    loader = jinja2.PackageLoader("analysis.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": plain_name, "duration": duration, "number": number, "span": span}
    environment.globals |= {
        "frames": FRAMES,
        "as_table": as_table,
        "tables": TABLES,
        "sorted_names": sorted_names,
        "heat": heat,
        "layer_sentences": layer_sentences,
        "shared_sentence": shared_sentence,
        "scores_beside": scores_beside,
    }
    chapters, explained = [], set()
    for index, report in enumerate(reports):
        listed, absent = sections(report, index, len(reports))
        chapters.append((report, [replace(section, explained=section.name in explained) for section in listed], absent))
        explained |= {section.name for section in listed}
    shown = [(report.name, key) for report in reports for key in FIGURE_ORDER if key in report.gallery.figures]
    return environment.get_template("report.html").render(
        reports=reports,
        chapters=chapters,
        comparison=comparison,
        figure_numbers={figure: position for position, figure in enumerate(shown, start=1)},
        today=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def sections(report: CheckpointReport, index: int, count: int) -> tuple[list[Section], list[str]]:
    """Lists the sections of one checkpoint, numbered, the appendices with letters.

    Returns:
        The sections that have something to show, and for each other one its title with what it needs.
    """
    metrics, figures = report.metrics, report.gallery.figures
    annotated = any(as_table(metrics, table.key) for table in TABLES)
    tested = metrics.get("edits") or (metrics.get("arithmetic") or {}).get("pairs")
    body = [
        ("summary", "In short", True, ""),
        ("move", "Move a layer yourself", report.gallery.faces, "held-out images"),
        ("layers", "What each layer holds", True, ""),
        ("levels", "The levels of a face", metrics.get("levels"), "known factors of a face"),
        ("identity", "Who is shown", metrics.get("identity"), "several images each of people whom training never saw"),
        ("quality", "How good the pictures are", True, ""),
        ("arithmetic", "Arithmetic and edits", "arithmetic" in figures or "edits" in figures, "held-out images"),
        ("memorization", "Does it remember its training images?", metrics.get("memorization"), "held-out images"),
        ("training", "Training", "training" in figures, "the run's metrics.jsonl beside the checkpoint"),
    ]
    appendix = [
        ("all-scores", "All scores of the probes", annotated, "annotations that vary"),
        ("all-codes", "The codes in numbers", True, ""),
        ("all-disentanglement", "Disentanglement", metrics.get("disentanglement"), "known factors"),
        ("all-successes", "Arithmetic and edits in numbers", tested, "attributes that a classifier can tell"),
        ("all-classifier", "How reliable the classifier is", metrics.get("classifier"), "annotations that vary"),
        ("all-traversals", "One dimension at a time", "traversals" in figures, "held-out images"),
    ]
    prefix, anchor = (f"{index + 2}.", f"{slug(report.name)}-") if count > 1 else ("", "")
    listed = []
    for marks, parts, folded in (("123456789", body, False), ("ABCDEF", appendix, True)):
        present = [(name, title) for name, title, shown, _ in parts if shown]
        listed += [
            Section(name, anchor + name, prefix + mark, title, folded)
            for mark, (name, title) in zip(marks, present, strict=False)
        ]
    return listed, [f"“{title}” needs {needs}" for _, title, shown, needs in body + appendix if not shown]


def slug(name: str) -> str:
    """A name as an anchor."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "run"


def duration(seconds: float | None) -> str | None:
    """Seconds in words: '45 s', '12 min', '3.5 h'."""
    if seconds is None:
        return None
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def span(ends: Sequence[float | None] | None, digits: int = 2) -> str:
    """An interval as 'low … high'; a dash where it is unknown."""
    return "–" if ends is None or None in ends else f"{number(ends[0], digits)} … {number(ends[1], digits)}"


def heat(value: float | None, limits: tuple[float, float]) -> str:
    """CSS colors of a cell: background by the color map, ink that is readable on it; '' where the value is unknown."""
    if value is None:
        return ""
    share = min(1.0, max(0.0, (value - limits[0]) / (limits[1] - limits[0])))
    red, green, blue, _ = matplotlib.colormaps[COLORS](share, bytes=True)
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{'#fff' if share < DARK else '#000'}"


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
                "leads": clear_leader(table, row) is not None,
                "changes": change["change"] if change else None,
                "changer": change["best_layer"] if change else None,
            }
        )
    return listed
