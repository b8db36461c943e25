"""How many CPU threads a step uses: all cores on an idle machine, fewer beside other busy processes.

The threads of an OpenMP team wait for each other at the end of every operation. Where another process holds one core,
the whole team waits until that thread gets its turn, so two threads can be ten times slower than one. This module
measures the steps, tries fewer threads when they have become slow, and more when the machine may be idle again. Each
trial is a few steps long, and a trial that failed is repeated only after forty times the time that it has cost: trials
take at most 2.5 % of the time.

Results with one and two threads differ in float rounding. For bit-equal repeats set ``OMP_NUM_THREADS``: then the
number of threads never changes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import TypeVar

import psutil
import torch

T = TypeVar("T")

RECENT_STEPS = 3
"""Steps whose median is the present duration."""
TRIAL_STEPS = 3
"""Steps of a trial. The first is not counted: with another number of threads oneDNN prepares its kernels again."""
SLOW = 1.3
"""A step this many times as long as a good one raises suspicion."""
FASTER = 0.92
"""A trial must take less than this share of the present duration to win."""
MIN_PAUSE_SECONDS = 5.0
COST_FACTOR = 40.0
"""The pause after a trial that failed, as a multiple of the time that it has cost."""
BUSY_CORES = 0.3
"""Cores in use by other processes from which on the machine counts as busy."""
SAMPLE_SECONDS = 1.0


class ThreadChooser:
    """Chooses the number of threads of the next step from the durations of the steps so far.

    A pure function of its inputs: time is the sum of the durations.
    """

    def __init__(self, most: int) -> None:
        """Starts with ``most`` threads, and may choose most · 3/4, 1/2, 1/4 … 1."""
        counts = {most, max(1, most * 3 // 4)} | {max(1, most >> shift) for shift in range(1, most.bit_length())}
        self.counts = sorted(counts, reverse=True)
        self._level = 0
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._good: dict[int, float] = {}
        """The shortest present duration of each level."""
        self._trial: int | None = None
        self._trial_durations: list[float] = []
        self._now = 0.0
        self._next_trial = 0.0

    def next(self, seconds: float, busy: bool) -> int:
        """Returns the number of threads for the next step.

        Args:
            seconds: Duration of the last step.
            busy: Whether other processes are known to use the CPU.
        """
        self._now += seconds
        if self._trial is None:
            self._recent.append(seconds)
            self._consider_trial(busy)
        else:
            self._continue_trial(self._trial, seconds)
        return self.counts[self._level if self._trial is None else self._trial]

    def _consider_trial(self, busy: bool) -> None:
        if len(self._recent) < RECENT_STEPS:
            return
        present = median(self._recent)
        slow = present > SLOW * self._good.setdefault(self._level, present)
        self._good[self._level] = min(self._good[self._level], present)
        if self._now < self._next_trial:
            return
        if self._level + 1 < len(self.counts) and (slow or (busy and self._level == 0)):
            self._trial = self._level + 1
        elif self._level > 0:
            self._trial = self._level - 1

    def _continue_trial(self, level: int, seconds: float) -> None:
        present = median(self._recent)
        self._trial_durations.append(seconds)
        best = min(self._trial_durations[1:], default=seconds)
        if len(self._trial_durations) < TRIAL_STEPS and best < 2 * present:
            return
        won = len(self._trial_durations) == TRIAL_STEPS and best < FASTER * present
        cost = sum(max(0.0, duration - present) for duration in self._trial_durations)
        self._next_trial = self._now + max(MIN_PAUSE_SECONDS, 0.0 if won else COST_FACTOR * cost)
        self._trial, self._trial_durations = None, []
        if won:
            self._level = level
            self._recent.clear()


class AdaptiveThreads:
    """Sets torch's number of threads between steps. Does nothing where the user has chosen the number."""

    def __init__(self, device: torch.device, world_size: int = 1) -> None:
        """Takes the present number of threads as the largest.

        Args:
            device: Device of the steps; on a GPU nothing changes.
            world_size: Processes that work in step; with more than one nothing changes, because each would measure the
                others' trials as well.
        """
        most = torch.get_num_threads()
        active = device.type == "cpu" and world_size == 1 and most > 1 and not user_chose_threads()
        self._chooser = ThreadChooser(most) if active else None
        self._others = OtherProcesses()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Measures the block as one step, and then sets the number of threads of the next one."""
        begin = time.perf_counter()
        yield
        if self._chooser is None:
            return
        count = self._chooser.next(time.perf_counter() - begin, self._others.busy_cores() > BUSY_CORES)
        if count != torch.get_num_threads():
            torch.set_num_threads(count)


def adaptive_threads(items: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yields ``items``, such as equally large batches, and adapts the number of threads to the time that each takes.

    At the end the number of threads is what it was before.
    """
    before = torch.get_num_threads()
    threads = AdaptiveThreads(device)
    try:
        for item in items:
            with threads.step():
                yield item
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


class OtherProcesses:
    """Measures how many cores other processes use. Looks at most once a second."""

    def __init__(self) -> None:
        """Starts the first interval."""
        self._process = psutil.Process()
        self._cores = 0.0
        self._before = self._read()

    def busy_cores(self, interval: float = SAMPLE_SECONDS) -> float:
        """Returns the cores that other processes used in the last interval of at least ``interval`` seconds."""
        if time.perf_counter() - self._before[0] >= interval:
            now = self._read()
            seconds, machine, own = (after - before for after, before in zip(now, self._before, strict=True))
            self._cores = max(0.0, machine - own) / max(seconds, 1e-9)
            self._before = now
        return self._cores

    def _read(self) -> tuple[float, float, float]:
        """Returns the time, and the CPU seconds of the machine and of this process so far."""
        machine, own = psutil.cpu_times(), self._process.cpu_times()
        return time.perf_counter(), machine.user + machine.system + getattr(machine, "nice", 0.0), own.user + own.system


def user_chose_threads() -> bool:
    """Whether the user has set the number of threads, by ``OMP_NUM_THREADS`` or through accelerate's launcher.

    ``accelerate launch`` sets ``OMP_NUM_THREADS`` by itself for CPU processes. The user's own choice is then in the
    launcher's environment, its command line or its configuration file.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        return False
    try:
        launcher = psutil.Process(os.getppid())
        words, environment = launcher.cmdline(), launcher.environ()
    except (psutil.Error, OSError):
        return True
    if "OMP_NUM_THREADS" in environment or not any(Path(word).name == "accelerate" for word in words[:3]):
        return True
    option = "num_cpu_threads_per_process"
    return any(option in word or (word.endswith((".yaml", ".yml")) and _mentions(word, option)) for word in words)


def _mentions(path: str, option: str) -> bool:
    try:
        return option in Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
