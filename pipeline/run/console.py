"""What a run prints: a rich progress bar on a terminal, plain lines elsewhere; on the main process only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from preprocess.errors import first_line

PLAIN_LINE_SECONDS = 10.0  # at least this long between two plain progress lines


class TrainingLog:
    """Prints the progress of a run to stderr. A log that cannot be written is dropped: training continues."""

    def __init__(self, steps: int, first_step: int, shown: bool) -> None:
        """Starts the log of ``steps`` optimizer steps; every method does nothing where ``shown`` is false."""
        self._shown, self._steps, self._last_plain = shown, steps, 0.0
        self._failure = ""
        self._report: Callable[[str], None] | None = None
        self._bar: Progress | None = None
        console = Console(stderr=True)
        if shown and console.is_terminal:
            count, text = TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"), TextColumn("{task.fields[text]}")
            times = (TimeElapsedColumn(), "ETA", TimeRemainingColumn())
            self._bar = Progress(SpinnerColumn(), count, BarColumn(24), text, *times, console=console)
            self._bar.add_task("training", total=steps, completed=first_step, text="")
            with self._dropped_on_failure():
                self._bar.start()

    def say(self, text: str) -> None:
        """Prints one line that stays."""
        with self._dropped_on_failure():
            if self._bar is not None:
                self._bar.console.print(text, highlight=False, markup=False)
            elif self._shown:
                print(text, file=sys.stderr, flush=True)

    def step(self, step: int, text: str, images_per_second: float, seconds_left: float) -> None:
        """Shows the progress after ``step`` steps; ``text`` holds the losses."""
        line = f"{text}  {images_per_second:,.0f} images/s"
        if self._bar is not None:
            with self._dropped_on_failure():
                self._bar.update(self._bar.task_ids[0], completed=step, text=line)
        elif time.monotonic() - self._last_plain >= PLAIN_LINE_SECONDS or step == self._steps:
            self._last_plain = time.monotonic()
            minutes, seconds = divmod(round(seconds_left), 60)
            self.say(f"step {step}/{self._steps}  {line}  ETA {minutes}:{seconds:02d}")

    def close(self) -> None:
        """Leaves the last state of the progress bar on the terminal."""
        if self._bar is not None:
            with self._dropped_on_failure():
                self._bar.stop()

    def on_failure(self, report: Callable[[str], None]) -> None:
        """Calls ``report`` with one sentence when the log fails, or at once if it has failed already."""
        self._report = report
        if self._failure:
            report(self._failure)

    @contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._shown, self._bar = False, None
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what other code prints must not fail either
            self._failure = f"the terminal's log cannot be written ({first_line(error)}); training continues without it"
            if self._report is not None:
                self._report(self._failure)
