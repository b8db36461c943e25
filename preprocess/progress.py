"""What a person sees: a progress bar on a terminal, plain lines elsewhere, and one sentence for an error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from preprocess.errors import UserError, first_line

if TYPE_CHECKING:  # pydantic takes a while to import
    from preprocess.shards.manifest import Manifest

SECONDS_BETWEEN_LINES = 5.0


class Terminal:
    """Tells how a run goes, on stderr. Use as a context manager."""

    def __init__(self, what: str, quiet: bool = False) -> None:
        self._what, self._quiet = what, quiet
        self._console = Console(stderr=True, quiet=quiet)
        self._bar: Progress | None = None
        self._total = self._done = self._left_out = self._written = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """One line, above the bar where there is one."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def start(self, images: int) -> None:
        """Now the work begins: so many images."""
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
            self._bar.add_task(self._what, total=images, status="")
            self._bar.start()

    def advance(self, images: int, left_out: int = 0, written: int = 0) -> None:
        """So many more images are done, of which so many were left out; so many bytes were written."""
        self._done += images
        self._left_out += left_out
        self._written += written
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, status=self._status())
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            remaining = (self._total - self._done) / max(self._rate(), 1e-9)
            self.say(f"{self._what}: {self._done:,} of {self._total:,}, {self._status()}, {remaining:.0f} s left")

    def finish(self) -> None:
        """The work is done: says in how long."""
        self.__exit__(None, None, None)
        seconds = time.monotonic() - self._started
        if self._total:
            self.say(f"{self._what}: {self._done:,} in {seconds:.1f} s, {self._status()}")

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def _status(self) -> str:
        parts = [f"{self._rate():,.0f}/s"]
        if self._written:
            parts.append(f"{self._written / 1e6:,.0f} MB")
        if self._left_out:
            parts.append(f"{self._left_out:,} left out")
        return ", ".join(parts)


def print_summary(manifest: Manifest, where: str) -> None:
    """A table of what is in the shards, on stdout."""
    height, width, channels = manifest.image_shape
    known = f"{len(manifest.attribute_names)} attributes, {len(manifest.factor_names)} factors"
    if manifest.landmark_names:
        known += f", {len(manifest.landmark_names)} landmark coordinates"
    table = Table()
    table.add_column("split")
    for column in ("samples", "shards", "MB"):
        table.add_column(column, justify="right")
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        table.add_row(name, f"{split.samples:,}", f"{len(split.shards):,}", f"{size:,.1f}")
    console = Console()
    console.print(
        escape(f"{where}: {height}x{width}x{channels} {manifest.codec}, {known}"), highlight=False, soft_wrap=True
    )
    console.print(table)
    if manifest.left_out:
        count = f"{len(manifest.left_out):,} images left out"
        console.print(f"{count}; the reasons are in {escape(where)}/manifest.json", highlight=False, soft_wrap=True)
        for left in manifest.left_out[:5]:
            console.print(escape(f"  {left.key}: {left.reason}"), soft_wrap=True, highlight=False)


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
        _exit(f"interrupted; {resume_hint}", 130, error)


def os_error_sentence(error: OSError) -> str:
    """Returns an OSError as `FILE: reason`, without the error number."""
    path = f"{error.filename}: " if error.filename else ""
    return f"{path}{error.strerror or first_line(error)}"


def _exit(sentence: str, code: int, error: BaseException) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    raise typer.Exit(code) from error
