"""``make faults``: runs the fault tests of docs/faults.md and prints what happened.

``--unprotected`` shows that each can fail: it removes one protection at a time (a patch of a named function) and runs
the short case, which must then fail.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tests.conftest import REPOSITORY, make_faces, make_shards
from tests.faults import registry
from tests.faults.fault import Fault, Mutation, NotSupportedHere, Workspace
from tests.processes import imported_with

console = Console(width=140)
PAGE = REPOSITORY / "docs/faults.md"
Result = tuple[str, bool, str]
"""Name of the fault test, whether it went as expected, and its row of a table in the page."""


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
        faces, shards = Path(folder, "faces"), Path(folder, "shards")
        make_faces(faces)
        make_shards(faces, shards)

        def workspace(**options: Any) -> Workspace:
            return Workspace(Path(tempfile.mkdtemp(dir=folder)), faces, shards, **options)

        if unprotected:
            results = [without_protections(f, workspace) for f in chosen]
        else:
            results = [as_it_is(f, workspace(full=not short)) for f in chosen]
    if write:
        write_rows("unprotected" if unprotected else "faults", {name: row for name, _, row in results})
    wrong = [name for name, expected, _ in results if not expected]
    console.print(
        f"{len(chosen) - len(wrong)} of {len(chosen)} as expected" + f"; not: {', '.join(wrong)}" * bool(wrong)
    )
    raise typer.Exit(1 if wrong else 0)


def as_it_is(fault: Fault, workspace: Workspace) -> Result:
    """Runs one fault test on the working tree."""
    began = time.monotonic()
    try:
        seen, outcome = fault.run(workspace), "holds"
    except NotSupportedHere as reason:
        seen, outcome = str(reason), "not run"
    except Exception as error:
        seen, outcome = f"{type(error).__name__}: {error}"[:2000], "FAILS"
    console.print(f"[bold]{outcome}[/] {fault.name} ({time.monotonic() - began:.0f} s): {seen}", highlight=False)
    seen = seen if outcome == "holds" else f"{outcome}: {seen}"
    return fault.name, outcome == "holds", f"| {fault.name} | {fault.must_hold} | {_cell(seen)} | {date.today()} |"


def without_protections(fault: Fault, workspace: Callable[..., Workspace]) -> Result:
    """Runs the short case of one fault test without each of its protections in turn."""
    passes: list[Mutation] = []
    for mutation in fault.mutations:
        try:
            with imported_with(mutation.environment()):
                seen, outcome = fault.run(workspace(mutation=mutation)), "PASSES"
            passes.append(mutation)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            seen, outcome = lines[0][:200], "fails"
        console.print(f"[bold]{outcome}[/] {fault.name}, without {mutation.protection}: {seen}", highlight=False)
    protections = (m.protection + " (PASSES)" * (m in passes) for m in fault.mutations)
    return fault.name, not passes, f"| {fault.name} | {'; '.join(protections)} |"


def write_rows(table: str, rows: dict[str, str]) -> None:
    """Writes rows into a table of the page; the rows of other fault tests stay."""
    begin, end = f"<!-- {table}: begin -->", f"<!-- {table}: end -->"
    before, rest = PAGE.read_text().split(begin)
    content, after = rest.split(end)
    head, line, *old = content.strip().splitlines()
    rows = {row.split("|")[1].strip(): row for row in old} | rows
    lines = [head, line, *(rows[f.name] for f in registry.FAULTS if f.name in rows)]
    PAGE.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


if __name__ == "__main__":
    typer.run(main)
