"""``make faults``: runs the fault tests of docs/faults.md and prints what happened.

``--unprotected`` shows that each can fail: it removes one protection at a time (a patch of a named function) and runs
the short case, which must then fail.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.conftest import REPOSITORY
from tests.faults import registry
from tests.faults.fault import Fault, NotSupportedHere, Workspace, make_material
from tests.processes import imported_with

console = Console(width=140)
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
UNPROTECTED_BEGIN, UNPROTECTED_END = "<!-- unprotected: begin -->", "<!-- unprotected: end -->"
Row = tuple[str, str, str, str]


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Fault tests whose name contains one of these words.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="The short cases of the test suite.")] = False,
    unprotected: Annotated[bool, typer.Option("--unprotected", help="Show that each test can fail.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the table into docs/faults.md.")] = False,
) -> None:
    """Runs the fault tests; exit code 1 if one does not end as expected."""
    chosen = [f for f in registry.FAULTS if not names or any(word in f.name for word in names)]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        material = make_material(Path(folder))
        if unprotected:
            rows = [row for f in chosen for row in without_protections(f, Path(folder), material)]
        else:
            rows = [as_it_is(f, Path(folder), material, full=not short) for f in chosen]
    if write:
        write_table(rows, unprotected)
    wrong = [row[0] for row in rows if row[2] != ("fails" if unprotected else "holds")]
    console.print(f"{len(rows) - len(wrong)} of {len(rows)} as expected" + (f"; not: {', '.join(wrong)}" * bool(wrong)))
    raise typer.Exit(1 if wrong else 0)


def as_it_is(fault: Fault, folder: Path, material: tuple[Path, Path], full: bool) -> Row:
    """Runs one fault test on the working tree."""
    began = time.monotonic()
    try:
        seen, outcome = fault.run(Workspace(Path(tempfile.mkdtemp(dir=folder)), *material, full=full)), "holds"
    except NotSupportedHere as reason:
        seen, outcome = str(reason), "not run"
    except Exception as error:
        seen, outcome = f"{type(error).__name__}: {error}"[:2000], "FAILS"
    console.print(f"[bold]{outcome}[/] {fault.name} ({time.monotonic() - began:.0f} s): {seen}", highlight=False)
    return fault.name, fault.must_hold, outcome, seen


def without_protections(fault: Fault, folder: Path, material: tuple[Path, Path]) -> list[Row]:
    """Runs the short case of one fault test without each of its protections in turn."""
    rows: list[Row] = []
    for mutation in fault.mutations:
        workspace = Workspace(Path(tempfile.mkdtemp(dir=folder)), *material, mutation=mutation)
        try:
            with imported_with(mutation.environment()):
                seen, outcome = fault.run(workspace), "PASSES"
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            seen, outcome = lines[0][:200], "fails"
        console.print(f"[bold]{outcome}[/] {fault.name}, without {mutation.protection}: {seen}", highlight=False)
        rows.append((mutation.protection, fault.name, outcome, seen))
    return rows


def write_table(rows: list[Row], unprotected: bool) -> None:
    """Writes rows into their table of docs/faults.md; the rows of other fault tests stay."""
    begin, end = (UNPROTECTED_BEGIN, UNPROTECTED_END) if unprotected else (BEGIN, END)
    page = REPOSITORY / "docs/faults.md"
    before, rest = page.read_text().split(begin)
    table, after = rest.split(end)
    head, line, *old = table.strip().splitlines()
    known = {row.split("|")[1].strip(): row for row in old}
    if unprotected:
        for name_ in {row[1] for row in rows}:
            shown = (
                protection + " (PASSES)" * (went != "fails") for protection, name, went, _ in rows if name == name_
            )
            known[name_] = f"| {name_} | {_cell('; '.join(shown))} |"
    else:
        for name_, must_hold, outcome, seen in rows:
            known[name_] = (
                f"| {name_} | {_cell(must_hold)} | {'' if outcome == 'holds' else outcome + ': '}{_cell(seen)} |"
            )
    lines = [head, line, *(known[f.name] for f in registry.FAULTS if f.name in known)]
    page.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    typer.run(main)
