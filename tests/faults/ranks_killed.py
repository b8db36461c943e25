"""SIGKILL of one rank, and of the launcher, while they train."""

from __future__ import annotations

import random
import time

import psutil

from tests.faults.fault import Mutation, Workspace, fault
from tests.faults.trainer_runs import (
    EVERY_STEP,
    Started,
    finish,
    gone,
    launched,
    ranked,
    resumed_at,
)
from tests.launch.runs import logged_steps, ranks_of

OFTEN = ("training.checkpoint_every_steps=5", *EVERY_STEP)
TO_END_S, TO_LEAVE_S = 10.0, 5.0

NO_ORPHANS = Mutation("end of ranks with their launcher", "pipeline.distributed.shutdown:die_with_parent", "returns")
ONE_SENTENCE = Mutation(
    "distinction of lost connections from other errors",
    "pipeline.distributed.heartbeat:is_lost_connection",
    "returns",
    False,
)
NO_PARTNER = Mutation(
    "search for the process of a lost rank", "pipeline.distributed.heartbeat:_local_state", "returns", ""
)


@fault(
    "one killed",
    "SIGKILL of one rank in mid-step, of the launcher: the launcher ends non-zero within 10 s, no rank lives 5 s after "
    "it, the survivors name the lost rank and the checkpoint in one sentence",
    NO_ORPHANS,
    ONE_SENTENCE,
    NO_PARTNER,
)
def one_killed(workspace: Workspace) -> str:
    """The launcher's ranks, and ranks without one."""
    chance = random.Random(7)
    victims = ["rank 0", "rank 1", "launcher"] * 3 if workspace.full else ["rank 1", "launcher"]
    ended: list[float] = []
    for number, victim in enumerate(victims):
        out = workspace.subfolder(f"launched {number}") / "run"
        with launched(workspace, out, *OFTEN) as run:
            run.until_step(6)
            time.sleep(chance.uniform(0, 0.1))
            ended.append(_kill(run, victim))
    for number in range(4 if workspace.full else 0):
        out = workspace.subfolder(f"without launcher {number}") / "run"
        with ranked(workspace, out, *OFTEN) as run:
            run.until_step(6)
            run.processes[number % 2].kill()
            began = time.monotonic()
            codes = run.ends(TO_END_S)
            ended.append(time.monotonic() - began)
            _named(run, number % 2)
            assert codes[1 - number % 2] == 1, codes
    out = workspace.folder / "launched 0/run"
    last = logged_steps(out)[-1]
    found = resumed_at(finish(workspace, out, *OFTEN, steps=last + 3).said())
    assert last - 5 <= found <= last, f"resumed at step {found} after step {last}"
    return f"{len(ended)} kills; slowest end {max(ended):.1f} s; the first continued from step {found} of {last}"


def _kill(run: Started, victim: str) -> float:
    """Kills one process of a launched run; how many seconds the launcher took to end."""
    ranks = run.ranks()
    launcher = psutil.Process(run.processes[0].pid)
    began = time.monotonic()
    (launcher if victim == "launcher" else ranks[int(victim[-1])]).kill()
    (code,) = run.ends(TO_END_S)
    took = time.monotonic() - began
    assert code != 0, f"{victim} was killed, and the launcher ended with 0"
    assert gone(ranks, TO_LEAVE_S), f"{len(ranks_of(run.out))} ranks outlived their launcher by {TO_LEAVE_S:g} s"
    if victim != "launcher":
        _named(run, int(victim[-1]))
    return took


def _named(run: Started, lost: int) -> None:
    """The survivor's sentence, and no traceback of it."""
    errors = run.errors()
    assert len(errors) == 1, f"{len(errors)} sentences about a lost rank: {run.said()[-3000:]}"
    assert f"lost rank {lost} (its process" in errors[0], errors[0]
    assert "during step" in errors[0] and "continues from" in errors[0] and "step-0000" in errors[0], errors[0]
    assert "_run(config" not in run.said(), f"a traceback of ours: {run.said()[-3000:]}"
