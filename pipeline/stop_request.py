"""Stopping well: a signal sets a flag, the ranks agree on it between two steps, the run saves and ends."""

from __future__ import annotations

import ctypes
import signal
import sys

import torch
import torch.distributed as dist

from pipeline.stop_signals import STOP_SIGNALS

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Has the kernel kill this rank when its launcher is killed, so that no orphan keeps the GPU (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StopRequest:
    """What the ranks agree on: whether any of them was asked to stop."""

    def __init__(self, device: torch.device, check_every_steps: int) -> None:
        self._every = check_every_steps
        # on GPUs the agreement runs over its own gloo group: NCCL would make the host wait for the device
        needs_group = dist.is_initialized() and device.type != "cpu"
        group = dist.new_group(backend="gloo") if needs_group else None
        self._group = group if isinstance(group, dist.ProcessGroup) else None

    def agreed(self, step: int) -> bool:
        """Whether any rank was asked to stop; the same answer on every rank. Call between steps, with the step."""
        if not dist.is_initialized():
            return STOP_SIGNALS.asked
        if step % self._every:
            return False
        flag = torch.tensor([int(STOP_SIGNALS.asked)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flag.item())
