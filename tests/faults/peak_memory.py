"""How much memory this process has needed at most."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> int:
    """Peak resident memory in MiB since this program began (Linux).

    ``getrusage`` would do for a process that a small one started: it keeps the peak of the fork before the exec.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024
