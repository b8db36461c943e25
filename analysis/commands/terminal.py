"""What the terminal shows while a command works: a bar for each task, plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 2.0


def _lines(text: str, total: int) -> Callable[[int], None]:
    """Reports a task by plain lines: one at once, more while it lasts."""
    print(f"{text} ({total:,})", file=sys.stderr, flush=True)
    done, last_line = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        if done < total and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            print(f"{text}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return advance


@contextmanager
def show_progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Yields a function (task, units) -> a function that reports finished units."""
    if not sys.stderr.isatty():
        yield _lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, "ETA", TimeRemainingColumn(), console=Console(stderr=True)) as bar:

        def task(text: str, total: int) -> Callable[[int], None]:
            number = bar.add_task(text, total=total)
            return lambda count: bar.advance(number, count)

        yield task
