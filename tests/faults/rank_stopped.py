"""A rank that is stopped, not dead: its connections stay open, and nothing ends by itself."""

from __future__ import annotations

import shutil
import signal
import time

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import EVERY_STEP, gone, launched, ranked

TIMEOUT_S, MORE_S = 5, 5.0
SETTINGS = (*EVERY_STEP, "training.checkpoint_every_steps=5", f"training.collective_timeout_seconds={TIMEOUT_S}")
LAUNCHER_KILLS_AFTER_S = 30.0


@fault(
    "rank stopped",
    "a rank stopped with SIGSTOP: the others end within training.collective_timeout_seconds + 5 s, naming it; it "
    "does not outlive the launcher",
    Mutation("timeout of steps", "pipeline.distributed.heartbeat:set_collective_timeout", "returns"),
    Mutation("heartbeat", "pipeline.distributed.heartbeat:Heartbeat._silent_ranks", "returns", {}),
)
def rank_stopped(workspace: Workspace) -> str:
    """Stops each rank in turn; as on two machines, where only signs of life can tell which, and on one."""
    ended: list[float] = []
    for stopped in (0, 1) if workspace.full else (1,):
        for elsewhere in (False, True) if workspace.full else (True,):
            ended.append(_without_launcher(workspace, stopped, elsewhere))
    said = f"{len(ended)} stopped ranks named after at most {max(ended):.1f} s with a time-out of {TIMEOUT_S} s"
    return f"{said}; {_with_launcher(workspace)}" if workspace.full else said


def _without_launcher(workspace: Workspace, stopped: int, elsewhere: bool) -> float:
    """Seconds after which the other rank had ended."""
    out = workspace.subfolder(f"rank {stopped} {elsewhere}") / "run"
    apart = [shutil.which("unshare") or "", "--user", "--map-root-user", "--uts"]
    apart += ["bash", "-c", 'hostname "rank-$RANK"; exec "$@"', "bash"]
    with ranked(workspace, out, *SETTINGS, before=apart if elsewhere else []) as run:
        run.until_step(6)
        victim, other = run.ranks()[stopped], run.processes[1 - stopped]
        victim.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        run.processes.remove(run.processes[stopped])
        run.ends(TIMEOUT_S + MORE_S)
        took = time.monotonic() - began
        victim.kill()
        assert other.returncode == 1, f"exit code {other.returncode}"
    (error,) = run.errors()
    if not (elsewhere and stopped == 0):  # rank 0 keeps the store here, in which signs of life would be
        why = "it does not respond" if elsewhere else f"its process {victim.pid} is stopped"
        assert f"lost rank {stopped} ({why})" in error, error
    assert "continues from" in error, error
    return took


def _with_launcher(workspace: Workspace) -> str:
    out = workspace.subfolder("launched") / "run"
    with launched(workspace, out, *SETTINGS) as run:
        run.until_step(6)
        ranks = run.ranks()
        ranks[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert gone(ranks[:1], TIMEOUT_S + MORE_S), f"rank 0 still waits after {TIMEOUT_S + MORE_S} s"
        (code,) = run.ends(LAUNCHER_KILLS_AFTER_S + 15)
        took = time.monotonic() - began
        assert code != 0
        assert gone(ranks, 5), "the stopped rank outlives the launcher"
    assert "lost rank 1" in run.said(), run.said()[-3000:]
    return f"the launcher ended it after {took:.0f} s"
