"""The terminal output of all three packages: progress on stderr, and one sentence with an exit code for an error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from preprocess.errors import UserError, first_line

SECONDS_BETWEEN_LINES = 5.0
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class ProgressReporter:
    """A context manager that reports one long task on stderr: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        """Names the task.

        Args:
            name: the name of the task, such as "celeba".
            quiet: prints nothing if true.
        """
        self._name, self._quiet = name, quiet
        self._console = Console(stderr=True, quiet=quiet)
        self._bar: Progress | None = None
        self._total = self._done = self._left_out = self._written = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def start(self, images: int) -> None:
        """Begins to count up to `images`."""
        self._total = images
        self._started = self._last_line = time.monotonic()
        if images and self._console.is_terminal and not self._quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.add_task(self._name, total=images, status="")
            self._bar.start()

    def advance(self, images: int, left_out: int = 0, written: int = 0) -> None:
        """Counts images that were processed.

        Args:
            images: number of images since the last call.
            left_out: how many of them were left out.
            written: bytes written since the last call.
        """
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
        self.__exit__(None, None, None)
        seconds = time.monotonic() - self._started
        if self._total:
            self.say(f"{self._name}: {self._done:,} in {seconds:.1f} s, {self._status()}")

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _status(self) -> str:
        parts = [f"{self._rate():,.0f}/s"]
        if self._written:
            parts.append(f"{self._written / 1e6:,.0f} MB")
        if self._left_out:
            parts.append(f"{self._left_out:,} left out")
        return ", ".join(parts)


@contextlib.contextmanager
def exit_on_error(resume_hint: str = "the same command continues from here", os_error_hint: str = "") -> Iterator[None]:
    """Turns an error that a user can cause into one sentence on stderr and an exit code.

    The exit code is that of the `UserError`, 1 for an OSError, and 130 after Ctrl-C.

    Args:
        resume_hint: what to do after an interruption.
        os_error_hint: added to the sentence about an OSError.

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
        hint = f"; {os_error_hint}" if os_error_hint else ""
        _exit(os_error_sentence(error) + hint, UserError.exit_code, error)
    except KeyboardInterrupt as error:
        _exit(f"interrupted; {resume_hint}", _INTERRUPTED, error)


def os_error_sentence(error: OSError) -> str:
    """Returns an OSError as `FILE: reason`, without the error number."""
    path = f"{error.filename}: " if error.filename else ""
    return f"{path}{error.strerror or first_line(error)}"


def _exit(sentence: str, code: int, error: BaseException) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    raise typer.Exit(code) from error
