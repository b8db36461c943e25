"""Stopping well: a signal sets a flag, the ranks agree on it between two steps, the run saves and ends."""

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
    """Has the kernel end this rank when its launcher ends, so that no orphan keeps the GPU (Linux).

    With SIGKILL where there are several, which torchrun asks to stop and waits for. `accelerate launch` of a single
    process does not wait: at Ctrl-C it is gone at once, and SIGTERM lets the rank save first.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and "TORCHELASTIC_RUN_ID" not in os.environ
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if alone else signal.SIGKILL)


class StopRequest:
    """Whether the ranks were asked to stop, agreed on among them."""

    def __init__(self, device: torch.device, check_every_steps: int, timeout: timedelta | None = None) -> None:
        """``timeout`` is of the agreement on GPUs; on CPUs that of all collectives holds."""
        self._every = check_every_steps
        # on GPUs the agreement runs over its own gloo group: NCCL would make the host wait for the device
        needs_group = dist.is_initialized() and device.type != "cpu"
        group = dist.new_group(backend="gloo", timeout=timeout) if needs_group else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None
        SIGNALS.begin_steps()

    def agreed(self, step: int) -> bool:
        """Whether any rank was asked to stop; the same answer on every rank. Call between steps, with the step."""
        if not dist.is_initialized():
            return SIGNALS.asked
        if step % self._every:
            return False
        flag = torch.tensor([int(SIGNALS.asked)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flag.item())
