"""What every command of ``analysis`` shares: clear errors, progress, opening checkpoints. Imports nothing heavy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from analysis.inputs.context import EvalContext

USAGE, FAILED = 2, 1


@contextmanager
def explained() -> Iterator[None]:
    """Turns what a person can do something about into one sentence and the right exit code."""
    from analysis.export.export import ExportError  # noqa: PLC0415
    from analysis.inputs.context import EvalContextError  # noqa: PLC0415
    from pipeline.checkpoint.file import CheckpointError  # noqa: PLC0415
    from pipeline.data.mapped import LoaderError  # noqa: PLC0415
    from preprocess.shards.manifest import ManifestError  # noqa: PLC0415
    from preprocess.shards.reader import ShardError  # noqa: PLC0415

    try:
        yield
    except (EvalContextError, CheckpointError, ExportError, LoaderError, ManifestError, ShardError) as error:
        give_up(str(error), FAILED)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        give_up(f"{error.strerror or error}{where}", FAILED)


def give_up(message: str, code: int) -> NoReturn:
    """Ends the command with one sentence on stderr."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def show_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A way to say what is being done: a bar for each task on a terminal, a line for each elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:

        def line(text: str, total: int) -> Callable[[int], None]:
            print(f"{text} ({total})", file=sys.stderr, flush=True)
            return lambda _: None

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, "ETA", TimeRemainingColumn(), console=console) as bar:

        def task(text: str, total: int) -> Callable[[int], None]:
            number = bar.add_task(text, total=total)
            return lambda count: bar.advance(number, count)

        yield task


def newest_run() -> Path:
    """The ckpt.pt under runs/ that was written last; said on the terminal."""
    found = sorted(Path("runs").glob("*/ckpt.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        give_up("there is no runs/*/ckpt.pt here; name a checkpoint", USAGE)
    print(f"checkpoint: {found[-1]}", file=sys.stderr)
    return found[-1]


def open_with_warnings(path: Path, data: Path | None) -> EvalContext:
    """A checkpoint with its shards; what is odd about them is said on the terminal."""
    from analysis.inputs.context import open_context  # noqa: PLC0415

    context, warnings = open_context(path, data)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return context


def short_names(paths: list[Path]) -> list[str]:
    """A short distinct name of each checkpoint: its folder, with its file where that is needed."""
    plain = [re.sub(r"[^A-Za-z0-9._-]", "_", path.resolve().parent.name) for path in paths]
    names = plain
    if len(set(names)) < len(names):
        names = [
            f"{name}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.stem)}" for name, path in zip(plain, paths, strict=True)
        ]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names)]
    return names


def chosen_layers(only: int | None, depth: int) -> list[int]:
    """The layers asked for with --layer: one, or all."""
    if only is not None and not 0 <= only < depth:
        give_up(f"--layer {only}: the model has layers 0 to {depth - 1}", USAGE)
    return list(range(depth)) if only is None else [only]
