"""The terminal output of all three packages: progress on stderr, and one sentence with an exit code for an error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import typer

from preprocess.errors import UserError, first_line

if TYPE_CHECKING:  # rich takes a tenth of a second to import
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 5.0
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class ProgressReporter(contextlib.ExitStack):
    """A context manager that reports one long task on stderr: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        """Takes the name of the task, such as "celeba"; a quiet one prints nothing."""
        from rich.console import Console  # noqa: PLC0415

        super().__init__()
        self._name = name
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False)
        self._bar: Progress | None = None
        self._total = self._done = self._left_out = self._written = 0
        self._started = self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        self._console.print(text, soft_wrap=True)

    def start(self, images: int) -> None:
        """Begins to count up to `images`."""
        self._total = images
        self._started = self._last_line = time.monotonic()
        if images and self._console.is_terminal and not self._console.quiet:
            from rich import progress as rich  # noqa: PLC0415

            count = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
            status = (rich.TextColumn("{task.fields[status]}"), rich.TimeRemainingColumn())
            self._bar = self.enter_context(rich.Progress(*count, *status, console=self._console))
            self._bar.add_task(self._name, total=images, status="")

    def advance(self, images: int, left_out: int = 0, written: int = 0) -> None:
        """Counts images since the last call, how many of them were left out, and the bytes that were written."""
        self._done += images
        self._left_out += left_out
        self._written += written
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, status=self._status())
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            remaining = (self._total - self._done) / max(self._rate(), 1e-9)
            self.say(f"{self._name}: {self._done:,} of {self._total:,}, {self._status()}, {remaining:.0f} s left")

    def finish(self) -> None:
        """Removes the bar and prints the time that the task took."""
        self.close()
        if self._total:
            seconds = time.monotonic() - self._started
            self.say(f"{self._name}: {self._done:,} in {seconds:.1f} s, {self._status()}")

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _status(self) -> str:
        written = f", {self._written / 1e6:,.0f} MB" if self._written else ""
        left_out = f", {self._left_out:,} left out" if self._left_out else ""
        return f"{self._rate():,.0f}/s{written}{left_out}"


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns an error that a user can cause into one sentence on stderr and an exit code.

    The exit code is that of the `UserError`, 1 for an OSError, and 130 after Ctrl-C.

    Raises:
        typer.Exit: in place of the error.
    """
    try:
        yield
    except UserError as error:
        _exit(str(error), error.exit_code, error)
    except BrokenPipeError:
        raise  # typer ends the command silently, as `| head` expects
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        _exit(f"{path}{error.strerror or first_line(error)}", UserError.exit_code, error)
    except KeyboardInterrupt as error:
        _exit("interrupted; the same command continues from here", _INTERRUPTED, error)


def _exit(sentence: str, code: int, error: BaseException) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    raise typer.Exit(code) from error
