"""What a person sees of a run: a rich progress line on a terminal, plain lines elsewhere; main process only."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_LINE_SECONDS = 10.0  # at most one plain progress line in this time


class TrainingLog:
    """Progress of ``steps`` optimizer steps. Every method does nothing where ``shown`` is false."""

    def __init__(self, steps: int, first_step: int, shown: bool) -> None:
        self._shown, self._steps = shown, steps
        self._console = Console(stderr=True)
        self._last_plain = 0.0
        self._bar: Progress | None = None
        if shown and self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                BarColumn(24),
            )
            text = TextColumn("{task.fields[text]}")
            self._bar = Progress(
                *columns, text, TimeElapsedColumn(), "ETA", TimeRemainingColumn(), console=self._console
            )
            self._task = self._bar.add_task("training", total=steps, completed=first_step, text="")
            self._bar.start()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)

    def step(self, step: int, text: str, images_per_second: float, seconds_left: float) -> None:
        """Progress after ``step`` steps; ``text`` holds the losses."""
        line = f"{text}  {images_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=line)
        elif self._shown and (time.monotonic() - self._last_plain >= PLAIN_LINE_SECONDS or step == self._steps):
            self._last_plain = time.monotonic()
            minutes, seconds = divmod(round(seconds_left), 60)
            print(f"step {step}/{self._steps}  {line}  ETA {minutes}:{seconds:02d}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
