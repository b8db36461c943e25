"""Trainers for fault tests: started by the launcher, or rank by rank as srun does; none outlives its test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import processes
from tests.faults.fault import Workspace, kill_session
from tests.launch.runs import logged_step, trainer_words, wait_until
from tests.processes import BIN, Process, free_port, rank_environment

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
        """The exit codes. Raises AssertionError where one lives on after so many seconds."""
        deadline = time.monotonic() + seconds
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
            wait_until(happened, what, self.processes[0])  # type: ignore[arg-type]
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.said()[-3000:]}") from None

    def until_step(self, step: int) -> None:
        """Waits until the run has logged ``step``."""
        self.until(lambda: logged_step(self.out) >= step, f"step {step}")

    def ranks(self, count: int = 2) -> list[psutil.Process]:
        """The living ranks in their order. Raises AssertionError where they are not so many."""
        if len(self.processes) == count > 1:
            return [psutil.Process(process.pid) for process in self.processes]
        found = sorted(ranks_of(self.out), key=lambda process: int(process.environ().get("RANK", "0")))
        assert len(found) == count, f"{len(found)} ranks live, not {count}: {self.said()[-3000:]}"
        return found


def ranks_of(out: Path) -> list[psutil.Process]:
    """The living ranks of the run in ``out``."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "pipeline/train.py" in words and str(out) in words and not {"launch"} & set(words):
            found.append(process)
    return found


def gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Whether all processes end within so many seconds; one that nobody has asked after yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in _still(processes)):
            return True
        time.sleep(0.02)
    return False


def _still(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if psutil.pid_exists(process.pid)]


@contextmanager
def launched(
    workspace: Workspace,
    out: Path,
    *overrides: str,
    how: Sequence[str] = LAUNCHED,
    steps: int = FOR_EVER,
    batch: int = 24,
) -> Iterator[Started]:
    """A run under accelerate's launcher, as the documents have it."""
    words = [*how, "pipeline/train.py", *trainer_words(workspace.shards, out, *overrides, steps=steps, batch=batch)]
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
    words = ["python", "pipeline/train.py"]
    words += trainer_words(workspace.shards, out, *overrides, steps=steps, batch=batch)
    if before:
        words = [*before, str(BIN / words[0]), *words[1:]]
    commands = [(differs(rank, words), rank_environment(rank, world, port)) for rank in range(world)]
    with _started(workspace, out, commands, fork=not imports) as run:
        yield run


@contextmanager
def _started(
    workspace: Workspace,
    out: Path,
    commands: list[tuple[list[str], dict[str, str]]],
    fork: bool = False,
) -> Iterator[Started]:
    out.parent.mkdir(parents=True, exist_ok=True)
    run = Started(out, [], [])
    try:
        for number, (words, env) in enumerate(commands):
            log = out.parent / f"{out.name}.{number}.log"
            log.unlink(missing_ok=True)
            run.logs.append(log)
            environment = workspace.environment({"CUDA_VISIBLE_DEVICES": "", **env})
            run.processes.append(processes.start(words, environment, log, log, fork))
        yield run
    finally:
        for process in run.processes:
            kill_session(process.pid)
        for process in ranks_of(out):  # torchrun gives each a session of its own
            process.kill()
        for process in run.processes:
            process.wait()


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


def logged_steps(out: Path) -> list[int]:
    """The training steps in a run's metrics.jsonl, in its order."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


def send(number: int, processes: Sequence[int]) -> None:
    """A signal to each process that still lives."""
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
