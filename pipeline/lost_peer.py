"""Telling a process that left, or has not answered, from an error of our own."""

from __future__ import annotations

import os
import re

import torch.distributed as dist

# what gloo, NCCL and torch's store say; gloo raises plain RuntimeErrors
_LEFT = re.compile(r"closed by peer|reset by peer|Broken pipe|remote process exited|socket closed")
_SILENT = re.compile(r"[Tt]imed out|[Tt]imeout|TIMEOUT")


def lost_peer(error: BaseException) -> str | None:
    """One sentence on the process that is gone, or None where ``error`` is about something else.

    No collective says which rank it was: the launcher does, which saw it end.
    """
    words = str(error)
    ours = isinstance(error, dist.DistError) or "gloo" in words or "NCCL" in words
    if not ours or os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    me = f"process {os.environ.get('RANK', '0')} of {os.environ['WORLD_SIZE']}"
    if _LEFT.search(words):
        return f"{me} stops because another one left in the middle of a step; the launcher says below which and why"
    if _SILENT.search(words):
        seconds = re.search(r"(\d+)\s?ms", words)
        waited = f" for {int(seconds[1]) / 1000:.0f} s" if seconds else ""
        return (
            f"{me} stops because another one has not answered{waited} (stopped, stuck or cut off; "
            "training.collective_timeout_seconds is how long it may take)"
        )
    return f"{me} stops because the processes lost each other ({words.splitlines()[0][:200]})"
