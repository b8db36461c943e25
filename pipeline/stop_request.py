"""Stopping well: a signal sets a flag, the ranks agree on it between two steps, the run saves and ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

import torch
import torch.distributed as dist

STOPPED_EARLY = 75  # exit code of a run that saved and stopped on a signal (EX_TEMPFAIL: run it again)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Has the kernel kill this rank when its launcher is killed, so that no orphan keeps the GPU (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StopRequest:
    """SIGTERM, SIGUSR1 (SLURM's preemption) and SIGINT ask for a stop; a second SIGINT ends the process at once."""

    def __init__(self, device: torch.device, check_every_steps: int) -> None:
        self._asked = False
        self._every = check_every_steps
        # on GPUs the agreement runs over its own gloo group: NCCL would make the host wait for the device
        needs_group = dist.is_initialized() and device.type != "cpu"
        group = dist.new_group(backend="gloo") if needs_group else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            os._exit(128 + number)
        self._asked = True

    def agreed(self, step: int) -> bool:
        """Whether any rank was asked to stop; the same answer on every rank. Call between steps, with the step."""
        if not dist.is_initialized():
            return self._asked
        if step % self._every:
            return False
        flag = torch.tensor([int(self._asked)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flag.item())
