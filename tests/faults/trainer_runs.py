"""Trainers for fault tests: started by the launcher, or rank by rank as srun does; none outlives its test."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import processes
from tests.faults.fault import Workspace
from tests.launch.runs import TRAINER, logged_step, ranks_of, trainer_words, wait_until
from tests.processes import Process, free_port, patience, rank_environment

EVERY_STEP = ("training.log_every_steps=1", "optimizer.schedule=constant")
LAUNCHED = ("accelerate", "launch", "--config_file", "launch/accelerate/cpu-2.yaml", "--main_process_port", "0")
ALONE = ("accelerate", "launch", "--config_file", "launch/accelerate/cpu-1.yaml")
FOR_EVER = 1_000_000


@dataclass
class Started:
    """A run under way: its processes (one launcher, or all ranks) and what each says."""

    out: Path
    processes: list[Process]
    logs: list[Path]

    def said(self) -> str:
        """What all of them said so far."""
        return "\n".join(log.read_text(errors="replace") for log in self.logs)

    def errors(self) -> list[str]:
        """The sentences that a person reads as the cause."""
        return [line for line in self.said().splitlines() if re.match(r"(\[rank \d+\] )?error: ", line)]

    def ends(self, seconds: float) -> list[int]:
        """The exit codes. Raises AssertionError where one lives on after so many seconds (on an idle machine)."""
        deadline = time.monotonic() + patience(seconds)
        codes: list[int] = []
        for process in self.processes:
            try:
                codes.append(process.wait(max(0.01, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"it did not end within {seconds:g} s:\n{self.said()[-3000:]}") from None
        return codes

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Waits for something. Raises AssertionError where the run ends before it, with what it said."""
        try:
            wait_until(happened, what, self.processes[0])
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.said()[-3000:]}") from None

    def until_step(self, step: int) -> None:
        """Waits until the run has logged ``step``."""
        self.until(lambda: logged_step(self.out) >= step, f"step {step}")

    def ranks(self, count: int = 2) -> list[psutil.Process]:
        """The living ranks in their order. Raises AssertionError where they are not so many."""
        if len(self.processes) == count > 1:
            return [psutil.Process(process.pid) for process in self.processes]
        found = ranks_of(self.out)
        assert len(found) == count, f"{len(found)} ranks live, not {count}: {self.said()[-3000:]}"
        return [found[rank] for rank in range(count)]


def gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Whether all processes end within so many seconds (on an idle machine); zombies have ended."""
    deadline = time.monotonic() + patience(seconds)
    while any(map(_lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def launched(
    workspace: Workspace,
    out: Path,
    *overrides: str,
    how: Sequence[str] = LAUNCHED,
) -> Iterator[Started]:
    """A run without an end under accelerate's launcher, as the documents have it."""
    words = [*how, TRAINER, *trainer_words(workspace.shards, out, *overrides, steps=FOR_EVER)]
    with _started(workspace, out, [(words, {})]) as run:
        yield run


@contextmanager
def ranked(
    workspace: Workspace,
    out: Path,
    *overrides: str,
    world: int = 2,
    steps: int = FOR_EVER,
    batch: int = 24,
    differs: Callable[[int, list[str]], list[str]] = lambda rank, words: words,
    before: Sequence[str] = (),
    imports: bool = False,
) -> Iterator[Started]:
    """A run whose ranks are started one by one, as srun does, so that their own exit codes are seen.

    ``differs`` may change the words of a rank's command line; ``before`` is a program that starts each rank. With
    ``imports`` each rank imports torch by itself.
    """
    port = free_port()
    program = [*before, "python"]
    words = [*program, TRAINER, *trainer_words(workspace.shards, out, *overrides, steps=steps, batch=batch)]
    commands = [(differs(rank, words), rank_environment(rank, world, port)) for rank in range(world)]
    with _started(workspace, out, commands, fork=not imports) as run:
        yield run


@contextmanager
def _started(
    workspace: Workspace, out: Path, commands: list[tuple[list[str], dict[str, str]]], fork: bool = True
) -> Iterator[Started]:
    logs = [out.parent / f"{out.name}.{number}.log" for number in range(len(commands))]
    started: list[Process] = []
    with processes.no_survivors(started):
        try:
            for log, (words, env) in zip(logs, commands, strict=True):
                log.unlink(missing_ok=True)
                started.append(processes.start(words, workspace.environment(env), log, log, fork))
            yield Started(out, [*started], logs)
        finally:
            for process in ranks_of(out).values():  # torchrun gives each a session of its own
                process.kill()


def finish(workspace: Workspace, out: Path, *overrides: str, world: int = 2, steps: int, batch: int = 24) -> Started:
    """A run to its end. Raises AssertionError where it does not end well."""
    with ranked(workspace, out, *overrides, world=world, steps=steps, batch=batch) as run:
        codes = run.ends(300)
        assert codes == [0] * world, f"exit codes {codes}: {run.said()[-3000:]}"
    return run


def resumed_at(said: str) -> int:
    """The step that a run says it was resumed at. Raises AssertionError where it does not say one."""
    found = re.findall(r"resumed from .+ at step (\d+)", said)
    assert found, f"nothing was resumed: {said[-3000:]}"
    return int(found[-1])
