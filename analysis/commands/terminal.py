"""What the terminal shows while a command works: a bar for each task, plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Yields a function (task, units) -> a function that reports finished units."""
    if not sys.stderr.isatty():

        def line(text: str, total: int) -> Callable[[int], None]:
            print(f"{text} ({total})", file=sys.stderr, flush=True)
            return lambda _: None

        yield line
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, "ETA", TimeRemainingColumn(), console=Console(stderr=True)) as bar:

        def task(text: str, total: int) -> Callable[[int], None]:
            number = bar.add_task(text, total=total)
            return lambda count: bar.advance(number, count)

        yield task
