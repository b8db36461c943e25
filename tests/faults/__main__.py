"""``make drill``: runs the drills of docs/faults.md and says what survived.

``--unprotected`` shows that each can fail: it takes one protection after the other out of a copy of the code and runs
the drill's short case, which must go red.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.conftest import REPOSITORY
from tests.faults import every
from tests.faults.drill import Drill, NotOnThisMachine, Workspace, copy_of_the_code, make_material

console = Console(width=140)
BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"
RED_BEGIN, RED_END = "<!-- red: begin -->", "<!-- red: end -->"
Row = tuple[str, str, str, str]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Drills whose name holds one of these words.")] = None,
    short: Annotated[bool, typer.Option("--short", help="The test suite's short cases.")] = False,
    unprotected: Annotated[bool, typer.Option("--unprotected", help="Show that each drill can fail.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Put the table into docs/faults.md.")] = False,
) -> None:
    """Runs the drills; exit code 1 where one fails."""
    chosen = [d for d in every.DRILLS if not names or any(word in d.name for word in names)]
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        material = make_material(Path(folder))
        if unprotected:
            rows = [row for d in chosen for row in without_protections(d, Path(folder), material)]
        else:
            rows = [as_it_is(d, Path(folder), material, full=not short) for d in chosen]
    if write:
        write_table(rows, unprotected)
    red = [row[0] for row in rows if row[2] != ("red" if unprotected else "holds")]
    console.print(f"{len(rows) - len(red)} of {len(rows)} as they should be" + (f"; not: {', '.join(red)}" * bool(red)))
    raise typer.Exit(1 if red else 0)


def as_it_is(drill: Drill, folder: Path, material: tuple[Path, Path], full: bool) -> Row:
    """Runs one drill on the working tree."""
    began = time.monotonic()
    room = Path(tempfile.mkdtemp(dir=folder))
    try:
        seen, verdict = drill.run(Workspace(room, REPOSITORY, *material, full=full)), "holds"
    except NotOnThisMachine as reason:
        seen, verdict = str(reason), "not run"
    except Exception as error:
        seen, verdict = f"{type(error).__name__}: {error}"[:2000], "FAILS"
    console.print(f"[bold]{verdict}[/] {drill.name} ({time.monotonic() - began:.0f} s): {seen}", highlight=False)
    return drill.name, drill.must_hold, verdict, seen


def without_protections(drill: Drill, folder: Path, material: tuple[Path, Path]) -> list[Row]:
    """Runs one drill's short case without each of its protections in turn."""
    rows: list[Row] = []
    for removal in drill.removals:
        room = Path(tempfile.mkdtemp(dir=folder))
        code = copy_of_the_code(room / "code")
        removal.apply(code)
        try:
            seen, verdict = drill.run(Workspace(room / "drill", code, *material)), "GREEN"
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            seen, verdict = lines[0][:200], "red"
        console.print(f"[bold]{verdict}[/] {drill.name}, without {removal.protection}: {seen}", highlight=False)
        rows.append((removal.protection, drill.name, verdict, seen))
    return rows


def write_table(rows: list[Row], unprotected: bool) -> None:
    """Puts these rows into the table of docs/faults.md that they belong in; other drills' rows stay as they are."""
    begin, end = (RED_BEGIN, RED_END) if unprotected else (BEGIN, END)
    page = REPOSITORY / "docs/faults.md"
    before, rest = page.read_text().split(begin)
    table, after = rest.split(end)
    head, line, *old = table.strip().splitlines()
    known = {row.split("|")[1].strip(): row for row in old}
    if unprotected:
        for drill in {row[1] for row in rows}:
            shown = (protection + " (GREEN)" * (went != "red") for protection, name, went, _ in rows if name == drill)
            known[drill] = f"| {drill} | {_cell('; '.join(shown))} |"
    else:
        for drill, must_hold, verdict, seen in rows:
            known[drill] = (
                f"| {drill} | {_cell(must_hold)} | {'' if verdict == 'holds' else verdict + ': '}{_cell(seen)} |"
            )
    lines = [head, line, *(known[drill.name] for drill in every.DRILLS if drill.name in known)]
    page.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    typer.run(main)
