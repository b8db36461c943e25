"""Stops a run on request: a signal sets a flag, the ranks agree on it between two steps, the run saves and ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from pipeline.distributed.signals import SIGNALS

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Lets the kernel end this rank when its launcher ends, so that no orphan keeps the GPU (Linux).

    Several ranks get SIGKILL, because torchrun stops them and waits. `accelerate launch` of a single process does not
    wait: at Ctrl-C it is gone at once, and SIGTERM lets the rank save first.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and "TORCHELASTIC_RUN_ID" not in os.environ
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if alone else signal.SIGKILL)


class StopRequest:
    """Whether any rank was asked to stop; all ranks get the same answer."""

    def __init__(self, device: torch.device, check_every_steps: int, timeout: timedelta | None = None) -> None:
        """Must be made by all ranks, when the first step is about to begin.

        Args:
            device: Of the run.
            check_every_steps: Steps between two checks.
            timeout: Of a check on GPUs; on CPUs the timeout of all collectives holds.
        """
        self._every, self._group = check_every_steps, None
        if dist.is_initialized() and device.type != "cpu":
            # over a gloo group of their own: NCCL would make the host wait for the device
            self._group = dist.new_group(backend="gloo", timeout=timeout)
        SIGNALS.begin_steps()

    def should_stop(self, step: int) -> bool:
        """Whether to stop after this step. Every rank must call it between two steps."""
        if not dist.is_initialized():
            return SIGNALS.stop_requested
        if step % self._every:
            return False
        flag = torch.tensor([int(SIGNALS.stop_requested)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)  # pyright: ignore[reportArgumentType]
        return bool(flag.item())
