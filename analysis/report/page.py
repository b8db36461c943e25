"""The page of a report: which sections it has, and what its templates need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import matplotlib

from analysis.figures.charts import COLORS, DARK, TABLES, as_table, sorted_names
from analysis.figures.gallery import CAPTIONS, Panel
from analysis.figures.motion import FRAMES
from analysis.report.layer_summary import clear_leader, layer_sentences, number, plain_name, shared_sentence

if TYPE_CHECKING:
    from analysis.report.report import CheckpointReport


class Section(NamedTuple):
    """One section of the page: its name in the templates, anchor, number and title; appendices are folded."""

    name: str
    anchor: str
    number: str
    title: str
    folded: bool


def render(reports: Sequence[CheckpointReport], comparison: Panel | None) -> str:
    """Renders the page; ``comparison`` is the chart of several checkpoints side by side."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain_name, "duration": duration, "number": number, "span": span}
    shared = (as_table, sorted_names, heat, clear_leader, layer_sentences, shared_sentence)
    environment.globals |= {function.__name__: function for function in shared}
    chapters = [(report, *sections(report, index, len(reports))) for index, report in enumerate(reports)]
    first_of: dict[str, str] = {}  # an earlier checkpoint's section of this name has said how to read it
    for _, listed, _ in chapters:
        for section in listed:
            first_of.setdefault(section.name, section.anchor)
    shown = [(report.name, key) for report in reports for key in CAPTIONS if key in report.gallery.figures]
    return environment.get_template("report.html").render(
        reports=reports,
        chapters=chapters,
        explained_in=first_of.values(),
        comparison=comparison,
        figure_numbers={figure: position for position, figure in enumerate(shown, start=1)},
        frames=FRAMES,
        tables=TABLES,
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
    listed: list[Section] = []
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
